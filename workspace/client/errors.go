package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/tunneler/tunneler/workspace/api"
)

// UnreachableError says that no answer of a coordinator came from URL: nothing
// listens there, the network does not lead there, or the connection broke.
type UnreachableError struct {
	URL string
	Err error
}

// Error implements error.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no answer from the server at %s: %v", e.URL, e.Err)
}

// Unwrap gives the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// maxErrorBody bounds what is read of an answer that is not a success.
const maxErrorBody = 64 << 10

// errorFrom reads the api.Error of an answer that is not a success. An answer
// that no coordinator gave, such as a proxy's, becomes one by its status.
func errorFrom(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	e := new(api.Error)
	if json.Unmarshal(body, e) != nil || e.Code == "" {
		e = &api.Error{
			Code:    codeFor(resp.StatusCode),
			Message: fmt.Sprintf("the server answered %s", resp.Status),
		}
	}
	e.Status = resp.StatusCode
	return e
}

func codeFor(status int) api.Code {
	switch status {
	case http.StatusUnauthorized:
		return api.CodeUnauthorized
	case http.StatusForbidden:
		return api.CodeForbidden
	case http.StatusNotFound:
		return api.CodeNotFound
	case http.StatusConflict:
		return api.CodeConflict
	case http.StatusRequestEntityTooLarge:
		return api.CodeTooLarge
	case http.StatusTooManyRequests:
		return api.CodeTooMany
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return api.CodeUnavailable
	}
	if status >= 400 && status < 500 {
		return api.CodeBadRequest
	}
	return api.CodeInternal
}

// transportError sorts an error that is no answer: the caller's own context is
// left as it is, everything else makes the server unreachable.
func transportError(ctx context.Context, url string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &UnreachableError{URL: url, Err: err}
}

// transient reports whether the same request may fare better later.
func transient(err error) bool {
	if u := (*UnreachableError)(nil); errors.As(err, &u) {
		return true
	}
	if e := (*api.Error)(nil); errors.As(err, &e) {
		switch e.Status {
		case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return e.Status >= http.StatusInternalServerError && e.Code != api.CodeAgentTimeout
	}
	return false
}
