package channel

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tunneler/tunneler/events"
)

var (
	// ErrUnauthorized means that the server does not accept the client's token,
	// or not for this. It is matched by a *HandshakeError with status 401 or
	// 403 and by a *RejectError with events.RejectUnauthorized.
	ErrUnauthorized = errors.New("the server does not accept the token")
	// ErrClosed is returned by calls on a client or connection that has ended
	// or is ending.
	ErrClosed = errors.New("the channel is closed")
	// ErrTooLarge is returned for a message that exceeds events.MaxChannelMessage.
	ErrTooLarge = errors.New("the message is too large for the channel")
	// ErrProtocol is wrapped by the error of a connection whose other end broke
	// the protocol.
	ErrProtocol = errors.New("the other side broke the channel's protocol")
	// ErrSilent is wrapped by the error of a connection that was given up
	// because nothing was heard from the other end for too long.
	ErrSilent = errors.New("nothing was heard from the other side for too long")
	// ErrBusy is returned by [ServerConn.Request] when as many requests as
	// allowed are waiting for their answer.
	ErrBusy = errors.New("too many requests are waiting for the agent's answer")
	// ErrNotDelivered is wrapped by the error of [Client.Shutdown] when messages
	// were left that nobody has taken.
	ErrNotDelivered = errors.New("messages were not delivered")
)

// HandshakeError is the server's refusal to begin a channel: an HTTP status
// that is not 101.
type HandshakeError struct {
	// Status is the HTTP status code.
	Status int
	// Code and Message are those of the error in the body, if there is one.
	Code, Message string
	// RetryAfter is how long the server asks to be left alone; zero if it does not.
	RetryAfter time.Duration
}

// Error is the server's sentence, or else its status.
func (e *HandshakeError) Error() string {
	if e.Message != "" {
		return fmt.Sprintf("%s (HTTP %d)", e.Message, e.Status)
	}
	return fmt.Sprintf("the server answered %d %s", e.Status, http.StatusText(e.Status))
}

// Is matches ErrUnauthorized.
func (e *HandshakeError) Is(target error) bool {
	return target == ErrUnauthorized && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden)
}

// permanent reports whether trying again cannot mend it. A 401 can be mended by
// another token, a 404 by the proxy in front of a server that is just starting.
func (e *HandshakeError) permanent() bool {
	switch e.Status {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusGone, http.StatusUpgradeRequired:
		return true
	}
	return false
}

// RejectError is the server's refusal of a hello, or its end of a session that
// was welcome.
type RejectError struct {
	// Reject is what the server said.
	Reject *events.SessionReject
}

// Error is the server's sentence, or else its code.
func (e *RejectError) Error() string {
	if e.Reject.Message != "" {
		return e.Reject.Message
	}
	return "the server refused the session: " + string(e.Reject.Code)
}

// Unwrap gives the message.
func (e *RejectError) Unwrap() error { return e.Reject }

// Is matches ErrUnauthorized.
func (e *RejectError) Is(target error) bool {
	return target == ErrUnauthorized && e.Reject.Code == events.RejectUnauthorized
}

// RefusedError is the agent's answer to a request that it did not fulfil.
type RefusedError struct {
	// Reason is a sentence for a person.
	Reason string
}

// Error is the agent's sentence.
func (e *RefusedError) Error() string { return "the agent refused: " + e.Reason }

// permanent reports whether an attempt's error cannot be mended by another one.
func permanent(err error) bool {
	if e, ok := errors.AsType[*HandshakeError](err); ok {
		return e.permanent()
	}
	if e, ok := errors.AsType[*RejectError](err); ok {
		return !e.Reject.Retryable
	}
	return events.IsPermanent(err)
}
