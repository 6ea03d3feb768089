package coordinator

import (
	"net/http"
	"strconv"
)

// queryInt reads a parameter of the query; 0 if it is not there.
func queryInt(r *http.Request, name string, low, high int64) (int64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return 0, nil
	}
	return parseInt(name, s, low, high)
}

func parseInt(what, s string, low, high int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < low || n > high {
		return 0, badRequest("%s is %q, expected a number from %d to %d", what, cut(s, 32), low, high)
	}
	return n, nil
}

// queryBool reads a parameter of the query; false if it is not there.
func queryBool(r *http.Request, name string) (bool, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, badRequest("%s is %q, expected true or false", name, cut(s, 32))
	}
	return b, nil
}
