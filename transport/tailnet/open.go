package tailnet

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tunneler/tunneler/events"
)

// Open opens a stream to a target at the agent's side. It costs no round trip:
// the header is sent at once, and the caller may write behind it at once; Read
// or WaitReply tell whether the agent has accepted. Open waits only if the
// connection carries as many streams as the agent allows.
//
// The opening ends with the reply, and so does ctx's reach: when ctx ends before
// the reply has been read, the stream is reset. So a caller whose ctx is for
// the opening only must call WaitReply before it cancels ctx, or use
// DialContext.
func (c *Conn) Open(ctx context.Context, header events.OpenHeader) (*Stream, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	wire, err := events.AppendOpenHeader(nil, header)
	if err != nil {
		return nil, err
	}
	q, err := c.openQUIC(ctx)
	if err != nil {
		return nil, err
	}
	s := &Stream{conn: c, q: q, header: header}
	s.waiting.Store(true)
	if ctx.Done() != nil {
		s.unwatch = context.AfterFunc(ctx, func() { s.abandon(context.Cause(ctx)) })
	}
	// A first write that fits a packet is only queued, so it does not block.
	if _, err = q.Write(wire); err != nil {
		err = s.failure(err)
		s.Reset(events.CloseNormal)
	}
	c.mu.Lock()
	c.opening--
	c.seen++
	if !s.ended.Load() { // else remove has been called, or will find nothing
		c.streams[s] = struct{}{}
	}
	c.advanceDrain()
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	c.metrics.add(StreamsOpened)
	return s, nil
}

// openQUIC opens a QUIC stream. On success, the stream counts as opening.
func (c *Conn) openQUIC(ctx context.Context) (*quic.Stream, error) {
	c.mu.Lock()
	draining := c.draining.Err() != nil || c.leaving.leave != nil
	if !draining {
		c.opening++
	}
	c.mu.Unlock()
	if draining {
		if err := c.q.Context().Err(); err != nil {
			return nil, c.connError(context.Cause(c.q.Context()))
		}
		return nil, ErrDraining
	}

	q, err := c.q.OpenStream()
	var gaveUp error
	if _, full := errors.AsType[*quic.StreamLimitReachedError](err); full {
		waiting, cancel := context.WithCancelCause(ctx)
		stop := context.AfterFunc(c.draining, func() { cancel(ErrDraining) })
		q, err = c.q.OpenStreamSync(waiting)
		if err != nil && waiting.Err() != nil {
			gaveUp = context.Cause(waiting) // ctx's error, or ErrDraining
		}
		stop()
		cancel(nil)
	}
	if err != nil {
		c.mu.Lock()
		c.opening--
		c.advanceDrain()
		c.mu.Unlock()
		if gaveUp != nil {
			return nil, gaveUp
		}
		return nil, c.connError(err)
	}
	return q, nil
}

// DialContext opens a stream and waits for the reply, as [net.Dialer] would:
// ctx bounds the dial, and its deadline is also the agent's, and it means
// nothing to the stream afterwards. The networks are tcp, unix and udp, where
// the connection is a *Flow.
func (c *Conn) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	kind, err := events.ParseNetwork(network)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	header := events.OpenHeader{Network: kind, Target: address}
	if deadline, ok := ctx.Deadline(); ok {
		// What is less than a millisecond would be zero: no deadline.
		header.Deadline = max(time.Until(deadline), time.Millisecond)
	}
	conn, err := c.openConn(ctx, header)
	if err == nil {
		if err = conn.WaitReply(ctx); err == nil {
			return conn, nil
		}
		_ = conn.Close()
	}
	return nil, &net.OpError{Op: "dial", Net: network, Addr: targetAddr{network, address}, Err: err}
}

// repliedConn is a stream or a flow.
type repliedConn interface {
	net.Conn
	WaitReply(context.Context) error
}

func (c *Conn) openConn(ctx context.Context, header events.OpenHeader) (repliedConn, error) {
	if header.Network == events.NetworkUDP {
		return c.OpenFlow(ctx, header)
	}
	return c.Open(ctx, header)
}

// remove takes an ended stream off the connection's books.
func (c *Conn) remove(s *Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, s)
	c.advanceDrain()
}
