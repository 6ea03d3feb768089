package coordinator

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/token"
)

const (
	// maxBody bounds a request body in bytes.
	maxBody = 1 << 20
	// requestTimeout bounds a request that is not a stream.
	requestTimeout = 30 * time.Second
	// retryAfter is what a client is told when the store or a place is wanting.
	retryAfter = 2 * time.Second
)

// Handler serves the route table, and for anything else an api.Error.
func (c *Coordinator) Handler() http.Handler { return c.handler }

func (c *Coordinator) newHandler() http.Handler {
	mux := http.NewServeMux()
	methods := make(map[string][]string)
	for _, r := range routes {
		mux.Handle(r.method+" "+r.path, c.serve(r))
		methods[r.path] = append(methods[r.path], r.method)
	}
	// Method by method: a refusal of all methods of one path would be less
	// specific in one respect, and more in another, than the routes beside it.
	for path, allowed := range methods {
		for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions} {
			if !slices.Contains(allowed, m) {
				mux.Handle(m+" "+path, c.refuse(allowed))
			}
		}
	}
	mux.Handle("/", c.refuse(nil))
	return mux
}

// refuse answers what is not in the table: another method of a known path, or
// an unknown path.
func (c *Coordinator) refuse(allowed []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := &api.Error{Code: api.CodeNotFound, Message: "there is nothing at this path", Hint: "see " + apiPrefix + "/openapi.json"}
		if allowed != nil {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			e = &api.Error{Code: api.CodeMethod, Message: fmt.Sprintf("the method %s is not allowed here", cut(r.Method, 16))}
		}
		started := time.Now()
		c.respondError(w, r, e)
		c.metrics.request("none", false, statuses[e.Code], time.Since(started))
	})
}

// serve puts the gate, the limits and the bookkeeping around one route.
func (c *Coordinator) serve(route route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		sw := &statusWriter{ResponseWriter: w}
		defer func() { c.metrics.request(route.path, route.stream, sw.status, time.Since(started)) }()
		defer func() {
			if v := recover(); v != nil {
				if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares it like this
					panic(v)
				}
				c.log.Error("a handler has panicked", zap.String("route", route.path), zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
				c.respondError(sw, r, errors.New("panic"))
			}
		}()
		if err := c.handle(route, sw, r); err != nil && sw.status == 0 {
			c.respondError(sw, r, err)
		}
	})
}

func (c *Coordinator) handle(route route, w http.ResponseWriter, r *http.Request) error {
	var who token.Claims
	if !route.open {
		raw, err := bearer(r)
		if err == nil {
			who, err = c.tokens.Verify(raw)
		}
		if err != nil {
			return tokenError(err)
		}
		if !slices.Contains(route.scopes, who.Scope) {
			return &api.Error{
				Code:    api.CodeForbidden,
				Message: fmt.Sprintf("a token of scope %s may not do this", who.Scope),
				Hint:    "use one of scope " + joinScopes(route.scopes),
			}
		}
	}
	if r.ContentLength > maxBody {
		// Said before a byte of it is read; the connection is closed, so that
		// none will be.
		w.Header().Set("Connection", "close")
		return &http.MaxBytesError{Limit: maxBody}
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if !route.stream {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		r = r.WithContext(ctx)
	}
	return route.handle(c, w, r, who)
}

// bearer reads the token of a request (RFC 6750, section 2.1).
func bearer(r *http.Request) (string, error) {
	scheme, raw, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", token.ErrMissing
	}
	return strings.TrimSpace(raw), nil
}

func joinScopes(scopes []api.Scope) string {
	words := make([]string, len(scopes))
	for i, s := range scopes {
		words[i] = string(s)
	}
	return strings.Join(words, " or ")
}

// respond answers with v as JSON.
func respond(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)+1))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// An error here is the caller's absence.
	_, _ = w.Write(append(b, '\n'))
	return nil
}

func (c *Coordinator) respondError(w http.ResponseWriter, r *http.Request, err error) {
	e, known := apiError(err)
	if !known {
		c.log.Error("a request has failed", zap.String("method", r.Method), zap.String("path", cut(r.URL.Path, 256)), zap.Error(err))
	}
	switch e.Code {
	case api.CodeUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="tunneler"`)
	case api.CodeUnavailable, api.CodeTooMany:
		w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter/time.Second)))
	case api.CodeTooLarge:
		w.Header().Set("Connection", "close")
	default:
	}
	if err := respond(w, statuses[e.Code], e); err != nil {
		c.log.Error("an error could not be answered", zap.Error(err))
	}
}

// decode reads a JSON body strictly: one value, no field that v does not have.
func decode(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = errors.New("something follows the JSON value")
		}
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return err
	}
	if errors.Is(err, io.EOF) {
		return badRequest("the request has no body: expected a JSON object")
	}
	return badRequest("the request body is not what is expected: %s", cut(strings.TrimPrefix(err.Error(), "json: "), 200))
}

// statusWriter remembers what was answered.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack is for the upgrade to a WebSocket, which then is answered.
func (w *statusWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}
