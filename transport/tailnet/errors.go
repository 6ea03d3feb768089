package tailnet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/quic-go/quic-go"

	"github.com/tunneler/tunneler/events"
)

// Why a connection was lost; each is the Cause of a [CloseError] with
// events.CloseLost.
var (
	// ErrIdleTimeout means that QUIC heard nothing for the idle timeout.
	ErrIdleTimeout = errors.New("nothing was received for the idle timeout")
	// ErrPeerSilent means that the health monitor gave the peer up.
	ErrPeerSilent = errors.New("the peer gave no sign of life")
	// ErrPeerUnreachable means that the peer fell silent and its host says
	// that nobody listens on its port any more.
	ErrPeerUnreachable = errors.New("nobody listens at the peer's address any more")
	// ErrPeerRestarted means that the peer's host answered with a stateless
	// reset (RFC 9000, section 10.3): its process has lost the connection.
	ErrPeerRestarted = errors.New("the peer does not know this connection any more")
)

// Why a call on a connection or a listener was refused.
var (
	// ErrDraining is returned by Open on a connection that is being drained.
	ErrDraining = errors.New("the connection is draining and takes no new streams")
	// ErrCutOff is returned by Drain when the grace was over before the streams
	// were.
	ErrCutOff = errors.New("streams were still open when the grace was over")
	// ErrListenerClosed is returned by calls on a closed listener.
	ErrListenerClosed = fmt.Errorf("the listener is closed: %w", net.ErrClosed)
	// ErrTooManySessions is returned by [Listener.Expect].
	ErrTooManySessions = errors.New("too many sessions are expected or connected")
	// ErrUnknownSession means that the agent does not expect the session:
	// it never did, or no longer. A new session can succeed.
	ErrUnknownSession = errors.New("the agent does not expect this session")
)

// KeyRefusedError says that the agent had pinned another key than ours.
// Trying again cannot mend it.
type KeyRefusedError struct {
	// Ours is the hash of the key that we showed.
	Ours KeyHash
}

// Error names the hash.
func (e *KeyRefusedError) Error() string {
	return fmt.Sprintf("the agent refused our key with hash %s: it expects another", e.Ours)
}

// CloseError says how a connection ended.
type CloseError struct {
	// Code and Reason are those of the side that closed.
	Code   events.CloseCode
	Reason string
	// Remote is set when the peer closed.
	Remote bool
	// Cause is the error behind it, if there is one: ErrIdleTimeout and its
	// like for a lost connection, or an error of QUIC's.
	Cause error
}

// Error says who closed and why.
func (e *CloseError) Error() string {
	who := "connection closed"
	switch {
	case e.Code == events.CloseLost:
		who = "connection lost"
	case e.Remote:
		who = "connection closed by the peer"
	}
	why := e.Reason
	if why == "" && e.Cause != nil {
		why = e.Cause.Error()
	}
	if why == "" {
		why = e.Code.String()
	}
	return who + ": " + why
}

// Unwrap gives the cause, and net.ErrClosed.
func (e *CloseError) Unwrap() []error {
	if e.Cause == nil {
		return []error{net.ErrClosed}
	}
	return []error{e.Cause, net.ErrClosed}
}

// ResetError says that a stream was cut off by the peer, without the end that
// a Close or CloseWrite gives it.
type ResetError struct {
	// Code is what the peer's Reset was called with.
	Code events.CloseCode
}

// Error names the code.
func (e *ResetError) Error() string {
	return fmt.Sprintf("stream reset by the peer (%s)", e.Code)
}

// DatagramTooLargeError is returned by [Flow.Write] for a datagram that does
// not fit into a packet of the connection's path; it was dropped.
type DatagramTooLargeError struct {
	// Size is the payload's length, Max what fits now, in bytes.
	Size, Max int
}

// Error names both sizes.
func (e *DatagramTooLargeError) Error() string {
	return fmt.Sprintf("datagram of %d bytes dropped: at most %d fit", e.Size, e.Max)
}

// closeErrorOf translates the error with which QUIC ended a connection.
func closeErrorOf(err error) *CloseError {
	var (
		closed    *CloseError
		app       *quic.ApplicationError
		idle      *quic.IdleTimeoutError
		handshake *quic.HandshakeTimeoutError
		reset     *quic.StatelessResetError
		transport *quic.TransportError
	)
	switch {
	case errors.As(err, &closed):
		return closed
	case errors.As(err, &app):
		return &CloseError{Code: closeCode(uint64(app.ErrorCode)), Reason: app.ErrorMessage, Remote: app.Remote}
	case errors.As(err, &idle), errors.As(err, &handshake):
		return &CloseError{Code: events.CloseLost, Cause: ErrIdleTimeout}
	case errors.As(err, &reset):
		return &CloseError{Code: events.CloseLost, Cause: ErrPeerRestarted}
	case errors.As(err, &transport):
		code := events.CloseProtocol
		var wrongKey *PeerKeyError
		if errors.As(err, &wrongKey) || isAlert(transport, alertBadCertificate) || isAlert(transport, alertUnrecognizedName) {
			code = events.CloseUnauthorized
		}
		return &CloseError{Code: code, Remote: transport.Remote, Cause: err}
	}
	return &CloseError{Code: events.CloseLost, Cause: err}
}

// closeCode reads a code off the wire; one that this version does not know is
// some breach of the protocol to it.
func closeCode(code uint64) events.CloseCode {
	if code > uint64(events.CloseUnauthorized) {
		return events.CloseProtocol
	}
	return events.CloseCode(code)
}

// isAlert reports whether the peer refused the handshake with the alert.
func isAlert(err *quic.TransportError, alert tls.AlertError) bool {
	return err.Remote && err.ErrorCode == 0x100+quic.TransportErrorCode(alert)
}

// connError translates an error of the connection, with the reason that only
// this side knows when this side closed it.
func (c *Conn) connError(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return c.closeError(err)
}

func (c *Conn) closeError(err error) *CloseError {
	var app *quic.ApplicationError
	if errors.As(err, &app) && !app.Remote {
		if local := c.closing.Load(); local != nil {
			return local
		}
	}
	return closeErrorOf(err)
}

// streamError translates an error of a stream's Read or Write. Errors of a
// deadline satisfy os.ErrDeadlineExceeded as they are.
func (c *Conn) streamError(err error) error {
	var cut *quic.StreamError
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return err
	case errors.As(err, &cut) && cut.Remote:
		return &ResetError{Code: closeCode(uint64(cut.ErrorCode))}
	case errors.As(err, &cut), errors.Is(err, quic.ErrStreamClosed):
		return net.ErrClosed
	case errors.Is(err, net.ErrClosed):
		return c.closeError(err)
	}
	return err
}
