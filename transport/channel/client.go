package channel

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

// Client is the agent's half of the channel. Its methods may be called from any
// goroutine, also before Run.
type Client struct {
	opts Options
	out  *outbox

	connected atomic.Bool
	offset    atomic.Pointer[time.Duration]
	org       atomic.Pointer[string]

	running atomic.Bool
	// leaving ends when everything is delivered and the client may say goodbye;
	// done is closed when Run has ended.
	leaving context.Context //nolint:containedctx // a state of the client's life, not of a call
	leave   context.CancelFunc
	done    chan struct{}
}

// New makes a client that does nothing until Run.
func New(opts Options) (*Client, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{opts: opts, out: newOutbox(opts.OutboxLimit, opts.LogWindow), done: make(chan struct{})}
	c.leaving, c.leave = context.WithCancel(context.Background())
	return c, nil
}

// Run keeps the channel connected until ctx ends, which is its error then, or
// until Shutdown has ended it, which is no error. It gives up when another
// attempt cannot help: with a *RejectError that is not retryable, a
// *HandshakeError that is not, an error that matches ErrUnauthorized after
// MaxUnauthorized tokens, or an error of URL or Token that is events.Permanent.
// It can be called once.
func (c *Client) Run(ctx context.Context) error {
	if !c.running.CompareAndSwap(false, true) {
		return errors.New("a channel runs only once")
	}
	defer close(c.done)
	defer c.out.close()
	retry := backoff{floor: c.opts.BackoffFloor, ceil: c.opts.BackoffCeil, random: c.opts.Rand}
	unauthorized := 0
	for c.leaving.Err() == nil {
		s := &session{client: c}
		err := s.run(ctx, unauthorized > 0)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if c.leaving.Err() != nil {
			return nil
		}
		if !s.since.IsZero() {
			unauthorized = 0
			if time.Since(s.since) >= backoffReset {
				retry.reset()
			}
		}
		if errors.Is(err, ErrUnauthorized) {
			c.opts.Metrics.refused.Add(1)
			unauthorized++
		}
		if permanent(err) || unauthorized >= c.opts.MaxUnauthorized {
			return err
		}
		delay := retry.next()
		if unauthorized == 1 && errors.Is(err, ErrUnauthorized) {
			delay = 0 // it may be only the cached token that is too old
		}
		if e, ok := errors.AsType[*HandshakeError](err); ok {
			delay = max(delay, min(e.RetryAfter, maxRetryAfter))
		}
		c.opts.Logger.Debug("channel is down", zap.Error(err), zap.Duration("retry", delay))
		c.opts.OnState(State{Err: err, Retry: delay})
		if !c.pause(ctx, delay) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// pause waits, less if the client is to leave; false means that ctx has ended.
func (c *Client) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.leaving.Done():
		return true
	case <-ctx.Done():
		return false
	}
}

// Send gives m to be sent, which must not be lost: it waits for room in the
// outbox until ctx ends, and from then on the message waits for a connection.
// Messages are sent in the order of their Sends.
//
// A log batch is sent again on the next connection until it is acknowledged,
// and so is the last lifecycle; the entries of log batches must have rising
// sequence numbers. Other messages are sent once. m must not be changed any
// more. The error is ctx's, ErrClosed after the end of Run, ErrTooLarge, or
// that m cannot be encoded.
func (c *Client) Send(ctx context.Context, m events.ChannelMessage) error {
	return c.out.put(ctx, m, c.done)
}

// TrySend gives m to be sent if there is room for it. It never waits; false
// means that m was dropped, which is counted.
func (c *Client) TrySend(m events.ChannelMessage) bool {
	if c.out.tryPut(m) {
		return true
	}
	c.opts.Metrics.dropped.Add(1)
	return false
}

// Connected reports whether the server has welcomed the client on a connection
// that still stands.
func (c *Client) Connected() bool { return c.connected.Load() }

// ClockOffset is how far the server's clock was ahead of ours when that was
// last measured, which is on each connect; ok is false before.
func (c *Client) ClockOffset() (offset time.Duration, ok bool) {
	if p := c.offset.Load(); p != nil {
		return *p, true
	}
	return 0, false
}

// Organization is the organisation that the agent belongs to, as the server
// said last; empty before.
func (c *Client) Organization() string {
	if p := c.org.Load(); p != nil {
		return *p
	}
	return ""
}

// Metrics counts what happens.
func (c *Client) Metrics() *Metrics { return c.opts.Metrics }

// Shutdown ends the channel in good order: it takes no more messages, waits
// until those given before are sent, and log batches acknowledged, says goodbye,
// and waits for the end of Run. When ctx ends first, it leaves at once, and the
// error wraps ErrNotDelivered if there was something left and ctx's.
func (c *Client) Shutdown(ctx context.Context) error {
	c.out.close()
	err := c.flush(ctx)
	c.leave()
	if !c.running.Load() {
		return err // there is no Run to wait for, and a later one ends at once
	}
	<-c.done
	return err
}

func (c *Client) flush(ctx context.Context) error {
	for {
		n, changed := c.out.left()
		if n == 0 {
			return nil
		}
		select {
		case <-changed:
			continue
		case <-c.done:
			return fmt.Errorf("%w: %d, the channel has ended", ErrNotDelivered, n)
		case <-ctx.Done():
			return fmt.Errorf("%w: %d: %w", ErrNotDelivered, n, context.Cause(ctx))
		}
	}
}
