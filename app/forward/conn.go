package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneler/tunneler/events"
)

// lingerTime is how long a client may go on sending after its answer ended,
// when the remote side has stopped reading: closing at once could reset the
// connection before the client has read the answer.
const lingerTime = 5 * time.Second

// longAgo as a deadline makes every Read and Write return.
var longAgo = time.Unix(1, 0)

// localConn is a local client's connection, in practice a *net.TCPConn.
type localConn interface {
	net.Conn
	CloseWrite() error
	SetLinger(sec int) error
}

// What a tunnel's connection may offer beside net.Conn; see Dialer.
type (
	closeWriter   interface{ CloseWrite() error }
	resetter      interface{ Reset(code events.CloseCode) }
	plainResetter interface{ Reset(code uint64) }
	lingerer      interface{ SetLinger(sec int) error }
)

// conn is one connection: a local client and its remote side.
//
// Two goroutines copy, one each way. One that comes to the end of its stream
// passes the end on and leaves; when both have, the connection is complete.
// One that fails calls abort, which tears both sides down and so ends the
// other.
type conn struct {
	app     *App
	forward *forward
	local   localConn
	tunnel  *tunnel
	remote  net.Conn
	dialled context.CancelFunc // ends the dial's context
	release sync.Once          // tears the remote side down

	remoteDeaf atomic.Bool // a write to the remote side failed
	remoteDone atomic.Bool // the remote side's stream has ended

	mu     sync.Mutex
	reason Reason // why it failed, the first one
	err    error
}

// run copies both ways until both are at an end and releases both sides.
func (c *conn) run() (Reason, error) {
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		c.send()
	}()
	c.receive()
	<-sent
	reason, err := c.failure()
	c.releaseRemote(reason)
	_ = c.local.Close()
	c.dialled()
	return reason, err
}

// send copies from the local client to the remote side.
func (c *conn) send() {
	readErr, writeErr := c.copyOut()
	switch {
	case readErr != nil:
		c.abort(ReasonLocalReset, readErr)
	case writeErr != nil:
		c.remoteDeaf.Store(true)
		if c.remoteDone.Load() {
			c.fail(c.remoteFailed(writeErr), writeErr)
			return
		}
		// The remote side reads no more, but why it does not, or its answer, is
		// still to be read by receive. Until then the client is read too, for
		// that is the only way to learn that it has gone.
		c.discard()
	default:
		if half, ok := c.remote.(closeWriter); ok {
			_ = half.CloseWrite() // if it fails, so does receive
			return
		}
		c.releaseRemote(reasonNone) // receive fails, unless it was done
	}
}

// discard reads the client until it ends or, the answer being over, is told to
// stop by a deadline.
func (c *conn) discard() {
	readErr, _ := pump(io.Discard, c.local, func(int) {})
	if readErr != nil && !errors.Is(readErr, os.ErrDeadlineExceeded) {
		c.abort(ReasonLocalReset, readErr)
	}
}

// receive copies from the remote side to the local client.
func (c *conn) receive() {
	answered, readErr, writeErr := c.copyIn()
	switch {
	case readErr != nil:
		reason := c.remoteFailed(readErr)
		if !answered && reason == ReasonRemoteReset && c.refused(readErr) {
			reason = ReasonUnreachable
		}
		c.abort(reason, readErr)
	case writeErr != nil:
		c.abort(ReasonLocalReset, writeErr)
	default:
		c.forward.works()
		c.remoteDone.Store(true)
		_ = c.local.CloseWrite() // if it fails, so does send
		if c.remoteDeaf.Load() {
			c.fail(ReasonRemoteReset, nil)
			_ = c.local.SetReadDeadline(time.Now().Add(lingerTime))
		}
	}
}

// remoteFailed says what an error of the remote side amounts to, and retires
// the tunnel if that is gone.
func (c *conn) remoteFailed(err error) Reason {
	if reason, _ := c.failure(); reason != reasonNone || !c.app.opts.Gone(err) {
		return ReasonRemoteReset
	}
	c.app.slot.retire(c.tunnel)
	return ReasonTunnelLost
}

// refused reports whether a first Read's error says that the target could not
// be reached, and reports that problem. A connection that has failed before
// has errors that say nothing.
func (c *conn) refused(err error) bool {
	if reason, _ := c.failure(); reason != reasonNone {
		return false
	}
	if errors.Is(err, context.DeadlineExceeded) {
		// The dial had returned before the answer, and the answer did not come.
		c.app.targetFailed(c.forward, &dialTimeoutError{after: c.app.opts.DialTimeout})
		return true
	}
	if _, ok := c.app.opts.Explain(err); !ok {
		return false
	}
	c.app.targetFailed(c.forward, err)
	return true
}

// abort fails the connection and tears down both sides.
func (c *conn) abort(reason Reason, err error) {
	reason = c.fail(reason, err)
	reset(c.local)
	c.releaseRemote(reason)
}

// cut fails the connection from outside. It does not block: the remote side,
// of which nothing is known, is only made to return, and torn down by the
// goroutines that use it.
func (c *conn) cut(reason Reason) {
	c.fail(reason, nil)
	reset(c.local)
	_ = c.remote.SetDeadline(longAgo)
}

// releaseRemote closes the remote side, or resets it if the connection failed.
func (c *conn) releaseRemote(reason Reason) {
	c.release.Do(func() {
		if reason == reasonNone {
			_ = c.remote.Close()
			return
		}
		resetRemote(c.remote, reason.resetCode())
	})
}

// fail sets the reason unless there is one, and returns the one that holds.
func (c *conn) fail(reason Reason, err error) Reason {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == reasonNone {
		c.reason, c.err = reason, err
	}
	return c.reason
}

func (c *conn) failure() (Reason, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason, c.err
}

// resetCode is what the remote side is told about a failure.
func (r Reason) resetCode() events.CloseCode {
	if r == ReasonClosed || r == ReasonTunnelLost {
		return events.CloseGoingAway
	}
	return events.CloseNormal
}

// reset closes a connection so that its peer sees a reset and not an end, if
// it can be done. It does not block.
func reset(c net.Conn) {
	if l, ok := c.(lingerer); ok {
		_ = l.SetLinger(0)
	}
	_ = c.Close()
}

// resetRemote closes a tunnel's connection in the same way.
func resetRemote(c net.Conn, code events.CloseCode) {
	switch r := c.(type) {
	case resetter:
		r.Reset(code)
	case plainResetter:
		r.Reset(uint64(code))
	}
	reset(c)
}
