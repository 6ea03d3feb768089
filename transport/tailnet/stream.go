package tailnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tunneler/tunneler/events"
)

// Stream is a byte stream to a target at the agent's side: a [net.Conn] that
// can be half-closed and reset. As with TCP, one goroutine may read while
// another writes, and any may close.
//
// A slow reader holds up its own stream only. A Stream is held by its
// connection until it is closed or reset, so one of the two must always be
// called, after errors as well.
type Stream struct {
	conn   *Conn
	q      *quic.Stream
	header events.OpenHeader

	// waiting is set while the opener has not read an ok reply; reading it is
	// the first reader's work, under replyMu.
	waiting atomic.Bool
	replyMu sync.Mutex
	prefix  prefixReader
	replied error

	// unwatch ends the watch on the opener's context.
	unwatch func() bool
	// abandoned is why the opener's context ended; it counts if that came
	// before an ok reply, and decided is set by whichever was first.
	abandoned atomic.Pointer[error]
	decided   atomic.Bool
	ended     atomic.Bool
}

var _ net.Conn = (*Stream)(nil)

// Header is what the stream was opened with.
func (s *Stream) Header() events.OpenHeader { return s.header }

// Read reads data from the target. On the opener's side the first Read waits
// for the agent's reply, and fails with an *events.Reply if that refuses. It
// returns io.EOF after the peer's half-close and a *ResetError after its reset.
func (s *Stream) Read(p []byte) (int, error) {
	if s.waiting.Load() {
		if err := s.readReply(); err != nil {
			return 0, err
		}
	}
	n, err := s.q.Read(p)
	if err != nil {
		err = s.failure(err)
	}
	return n, err
}

// Write sends data to the target. The opener need not wait for the reply.
func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.q.Write(p)
	if err != nil {
		err = s.failure(err)
	}
	return n, err
}

func (s *Stream) failure(err error) error {
	if why := s.abandoned.Load(); why != nil && s.waiting.Load() {
		return *why
	}
	if s.ended.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		return net.ErrClosed // the deadline was Close's
	}
	return s.conn.streamError(err)
}

// WaitReply waits for the agent's reply: nil if it is ok, an *events.Reply if
// it is a refusal. When ctx ends first, the stream is reset. On the agent's
// side it returns nil.
func (s *Stream) WaitReply(ctx context.Context) error {
	if !s.waiting.Load() {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { s.abandon(context.Cause(ctx)) })
	defer stop()
	return s.readReply()
}

func (s *Stream) readReply() error {
	s.replyMu.Lock()
	defer s.replyMu.Unlock()
	if s.replied != nil || !s.waiting.Load() {
		return s.replied
	}
	reply, err := s.readPrefix()
	switch {
	case err == nil && reply.Code == events.ReplyOK:
		if !s.decided.CompareAndSwap(false, true) {
			s.replied = *s.abandoned.Load()
			return s.replied
		}
		s.waiting.Store(false)
		s.unwatchContext()
		return nil
	case err == nil:
		s.replied = &reply
	case errors.Is(err, events.ErrStreamHeader):
		s.conn.metrics.add(BadReplies)
		s.Reset(events.CloseProtocol)
		s.replied = err
	case errors.Is(err, os.ErrDeadlineExceeded) && !s.ended.Load():
		return err // what has come is kept for the next call
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		s.replied = fmt.Errorf("the agent ended the stream without a reply: %w", io.ErrUnexpectedEOF)
	default:
		s.replied = s.failure(err)
	}
	return s.replied
}

func (s *Stream) readPrefix() (events.Reply, error) {
	s.prefix.r, s.prefix.least = s.q, leastReply
	s.prefix.pos = 0
	return events.ReadReply(&s.prefix)
}

// CloseWrite half-closes the stream: the peer reads what was written and then
// io.EOF. It must not be called while a Write is under way.
func (s *Stream) CloseWrite() error {
	// It fails only if the peer has stopped reading, and then has not been
	// waiting for an end.
	_ = s.q.Close()
	return nil
}

// Close closes the stream both ways. What was written before still reaches the
// peer, and so does the end of it. What the peer still sends is discarded, and
// the peer is told to stop. A Write under way is cut short.
func (s *Stream) Close() error {
	if !s.ended.CompareAndSwap(false, true) {
		return nil
	}
	_ = s.q.SetWriteDeadline(time.Unix(1, 0)) // always nil
	_ = s.q.Close()
	// Without this the peer could fill the windows with what nobody reads.
	s.q.CancelRead(quic.StreamErrorCode(events.CloseNormal))
	s.finish()
	return nil
}

// Reset cuts the stream off both ways at once: what the peer has not read yet
// is lost, and its Read and Write fail with a *ResetError.
func (s *Stream) Reset(code events.CloseCode) {
	if s.ended.CompareAndSwap(false, true) {
		s.cut(code)
	}
}

func (s *Stream) cut(code events.CloseCode) {
	s.finish() // first, so that it is done when a blocked reader returns
	s.q.CancelWrite(quic.StreamErrorCode(code))
	s.q.CancelRead(quic.StreamErrorCode(code))
}

// abandon resets the stream because the opener's context has ended before an
// ok reply was read.
func (s *Stream) abandon(why error) {
	s.abandoned.CompareAndSwap(nil, &why)
	if s.decided.CompareAndSwap(false, true) && s.ended.CompareAndSwap(false, true) {
		s.cut(events.CloseNormal)
	}
}

func (s *Stream) finish() {
	s.unwatchContext()
	s.conn.remove(s)
}

func (s *Stream) unwatchContext() {
	if s.unwatch != nil {
		s.unwatch()
	}
}

// SetDeadline sets both deadlines.
func (s *Stream) SetDeadline(t time.Time) error { return s.q.SetDeadline(t) }

// SetReadDeadline bounds Read, also one under way; zero removes the bound.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.q.SetReadDeadline(t) }

// SetWriteDeadline bounds Write, also one under way; zero removes the bound.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.q.SetWriteDeadline(t) }

// LocalAddr is the connection's local address.
func (s *Stream) LocalAddr() net.Addr { return s.conn.LocalAddr() }

// RemoteAddr is the target, as the opener named it.
func (s *Stream) RemoteAddr() net.Addr {
	return targetAddr{network: s.header.Network.String(), target: s.header.Target}
}

type targetAddr struct{ network, target string }

func (a targetAddr) Network() string { return a.network }
func (a targetAddr) String() string  { return a.target }
