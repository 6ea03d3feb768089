package tailnet

import (
	"context"
	"time"

	"github.com/tunneler/tunneler/events"
)

// A drain, step by step. It may be begun by either side, or by both at once.
//
//  1. The side that leaves sends Drain. From then on no stream is opened.
//  2. When the tunneler has no stream left, it sends Drained with the number of
//     streams that it has opened in all.
//  3. When the agent has seen that many and has none left, it sends Drained.
//  4. The side that leaves closes: the agent after step 2, the tunneler after
//     step 3. A stream counts until its owner has closed it, which is after it
//     has read what it wanted, so by then nothing is in flight that anybody
//     waits for.
//
// When the grace is over, the side that leaves closes all the same.
type drainState struct {
	// leave is set when this side leaves: how it will close.
	leave *CloseError
	// peer is the peer's Drain frame, if the peer leaves.
	peer *events.Drain
	// peerDrained is set by the peer's Drained frame, peerSeen is its number.
	peerDrained bool
	peerSeen    uint64
	// said is set once we have sent Drained.
	said bool
	// drained is closed when this side, leaving, may close.
	drained chan struct{}
	closed  bool
}

// Draining is closed when either side has announced that it goes away, or the
// connection has ended. Streams in flight go on until they are finished.
func (c *Conn) Draining() <-chan struct{} { return c.draining.Done() }

// PeerDrain is the peer's announcement that it goes away; ok is false when
// there was none.
func (c *Conn) PeerDrain() (grace time.Duration, reason string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.leaving.peer; p != nil {
		return p.Grace, p.Reason, true
	}
	return 0, "", false
}

// Drain announces that this side goes away, lets the streams in flight finish,
// and closes the connection: when they have, when the grace is over, or when
// ctx ends. It waits for all of that. The owner of an agent's connection must
// go on calling Accept. The error is nil when every stream was finished, and
// ErrCutOff or ctx's when some were not.
func (c *Conn) Drain(ctx context.Context, grace time.Duration, reason string) error {
	return c.shutdown(ctx, &CloseError{Code: events.CloseGoingAway, Reason: reason}, grace, false)
}

// shutdown is Drain and Close.
func (c *Conn) shutdown(ctx context.Context, why *CloseError, grace time.Duration, reset bool) error {
	c.mu.Lock()
	first := c.leaving.leave == nil
	if first {
		c.leaving.leave = why
	}
	var open []*Stream
	for s := range c.streams {
		if reset {
			open = append(open, s)
		}
	}
	used := c.seen > 0
	c.mu.Unlock()

	if _, degraded := c.health.state(); reset && (degraded || !used) {
		grace = 0 // nobody to wait for, or nothing
	}
	if first && grace > 0 {
		c.control.send(events.Drain{Grace: grace, Reason: why.Reason})
	}
	c.drain()
	for _, s := range open {
		s.Reset(events.CloseGoingAway)
	}
	c.mu.Lock()
	c.advanceDrain()
	c.mu.Unlock()

	err := c.awaitDrained(ctx, grace)
	c.close(why)
	<-c.done
	return err
}

func (c *Conn) awaitDrained(ctx context.Context, grace time.Duration) error {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.leaving.drained:
		return nil
	case <-c.q.Context().Done():
		end := c.closeError(context.Cause(c.q.Context()))
		if c.drainedBy(end) {
			return nil
		}
		return end
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return ErrCutOff
	}
}

// drainedBy reports whether a connection that ended while this side was leaving
// had nothing left to finish: when both sides leave, one is first to close.
func (c *Conn) drainedBy(end *CloseError) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &c.leaving
	return d.closed || d.said && d.peer != nil && end.Remote
}

func (c *Conn) peerDrains(f events.Drain) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving.peer == nil {
		c.leaving.peer = &f
	}
	c.drain()
	c.advanceDrain()
}

func (c *Conn) peerDrained(f events.Drained) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving.peerDrained, c.leaving.peerSeen = true, f.Streams
	c.advanceDrain()
}

// advanceDrain takes the next step of a drain if it is due. It is called with
// the lock held, after everything that may make it due.
func (c *Conn) advanceDrain() {
	d := &c.leaving
	if d.leave == nil && d.peer == nil || len(c.streams) > 0 || c.opening > 0 {
		return
	}
	if !c.client && (!d.peerDrained || c.seen < d.peerSeen) {
		return
	}
	if !d.said {
		d.said = true
		c.control.send(events.Drained{Streams: c.seen})
	}
	if d.leave != nil && d.peerDrained && !d.closed {
		d.closed = true
		close(d.drained)
	}
}
