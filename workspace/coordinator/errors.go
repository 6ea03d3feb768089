package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"unicode/utf8"

	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/store"
	"github.com/tunneler/tunneler/workspace/token"
)

// maxErrorText bounds the text of an error that is stored, in bytes.
const maxErrorText = 4 << 10

// statuses is the HTTP status of each error code (RFC 9110, section 15).
var statuses = map[api.Code]int{
	api.CodeBadRequest:   http.StatusBadRequest,
	api.CodeUnauthorized: http.StatusUnauthorized,
	api.CodeForbidden:    http.StatusForbidden,
	api.CodeNotFound:     http.StatusNotFound,
	api.CodeMethod:       http.StatusMethodNotAllowed,
	api.CodeExists:       http.StatusConflict,
	api.CodeBuildActive:  http.StatusConflict,
	api.CodeConflict:     http.StatusConflict,
	api.CodeTooLarge:     http.StatusRequestEntityTooLarge,
	api.CodeTooMany:      http.StatusTooManyRequests,
	api.CodeInternal:     http.StatusInternalServerError,
	api.CodeUnavailable:  http.StatusServiceUnavailable,
	api.CodeAgentTimeout: http.StatusGatewayTimeout,
}

func badRequest(format string, args ...any) *api.Error {
	return &api.Error{Code: api.CodeBadRequest, Message: fmt.Sprintf(format, args...)}
}

func workspaceGone(name string) *api.Error {
	return &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("workspace %s has been deleted", name)}
}

var errShuttingDown = &api.Error{Code: api.CodeUnavailable, Message: "the server is shutting down", Hint: "try again in a moment"}

// apiError finds the answer for an error of a handler. known is false for a
// defect, whose text is for the log and not for strangers.
func apiError(err error) (e *api.Error, known bool) {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &e):
		return e, true
	case errors.As(err, &tooLarge):
		return &api.Error{
			Code:    api.CodeTooLarge,
			Message: fmt.Sprintf("the request body is larger than %d bytes", tooLarge.Limit),
		}, true
	case errors.Is(err, store.ErrWriteFailed):
		return &api.Error{
			Code: api.CodeUnavailable, Message: "the server cannot write to its disk",
			Hint: "make room on the disk of its data directory, or mend it, and restart the server",
		}, true
	case errors.Is(err, store.ErrTooLarge):
		return &api.Error{Code: api.CodeTooLarge, Message: "this is too large to be stored", Hint: "use a smaller template"}, true
	case unavailable(err):
		return &api.Error{
			Code: api.CodeUnavailable, Message: "the server cannot reach its store", Hint: "try again in a moment",
		}, true
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &api.Error{Code: api.CodeUnavailable, Message: "the request took too long", Hint: "try again"}, true
	}
	return &api.Error{
		Code: api.CodeInternal, Message: "the server has failed to do this", Hint: "its log says why",
	}, false
}

// tokenError is the answer to a token that is refused.
func tokenError(err error) *api.Error {
	e := &api.Error{Code: api.CodeUnauthorized, Message: "the token is not valid"}
	for _, known := range []struct {
		err  error
		hint string
	}{
		{token.ErrMissing, "send it as Authorization: Bearer TOKEN"},
		{token.ErrExpired, "get a new one from the server's operator"},
		{token.ErrForeign, "use the token of this server"},
		{token.ErrNotYetValid, "set the clock right"},
		{token.ErrMalformed, "check that it was copied whole"},
		{token.ErrAlgorithm, "use a token that this server has issued"},
		{token.ErrClaims, "use a token that this server has issued"},
	} {
		if errors.Is(err, known.err) {
			e.Message, e.Hint = known.err.Error(), known.hint
			break
		}
	}
	return e
}

// cut shortens s to at most n bytes, between characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
