package forward

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tunneler/tunneler/events"
)

// serve carries one connection from accept to end and says how that went.
func (a *App) serve(f *forward, local localConn) (Reason, error) {
	c := &conn{app: a, forward: f, local: local}
	if err := a.reach(c); err != nil {
		reason := a.unserved(f, err)
		reset(local)
		return reason, err
	}
	defer a.slot.remove(c)
	return c.run()
}

// reach dials the target through the tunnel, waiting for a tunnel as often as
// one goes away before the dial is done: no byte of the client has been read
// by then. It sets c.tunnel, c.remote and c.dialled.
func (a *App) reach(c *conn) error {
	var deadline time.Time // of all waiting together, from when it begins
	until := func() time.Time {
		if deadline.IsZero() {
			deadline = time.Now().Add(a.opts.AttachTimeout)
		}
		return deadline
	}
	for {
		t, err := a.slot.wait(until)
		if err != nil {
			return err
		}
		if err = a.dial(t, c); err == nil {
			if a.slot.add(c) {
				return nil
			}
			resetRemote(c.remote, events.CloseGoingAway)
			c.dialled()
			continue
		}
		if t.ctx.Err() != nil {
			continue
		}
		if a.opts.Gone(err) {
			a.slot.retire(t)
			continue
		}
		return err
	}
}

// dial opens the remote side. Its context outlives it, for the answer may be
// still to come.
func (a *App) dial(t *tunnel, c *conn) error {
	ctx, cancel := context.WithTimeout(t.ctx, a.opts.DialTimeout)
	remote, err := t.dialer.DialContext(ctx, "tcp", c.forward.target)
	if err == nil {
		c.tunnel, c.remote, c.dialled = t, remote, cancel
		return nil
	}
	defer cancel()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &dialTimeoutError{after: a.opts.DialTimeout}
	}
	return err
}

// unserved says why a connection got no remote side, and reports it.
func (a *App) unserved(f *forward, err error) Reason {
	switch {
	case errors.Is(err, errClosed):
		return ReasonClosed
	case errors.Is(err, errNoTunnel):
		return ReasonNoTunnel
	case errors.Is(err, ErrTooManyWaiting):
		a.tooManyWaiting.Do(func() {
			a.opts.OnProblem(Problem{Forward: f.bound, Err: ErrTooManyWaiting,
				Sentence: fmt.Sprintf("%d connections wait for the tunnel, further ones are refused until it is back",
					max(a.opts.MaxWaiting, 0))})
		})
		return ReasonTooManyWaiting
	}
	a.targetFailed(f, err)
	return ReasonUnreachable
}

// targetFailed reports that a forward's target cannot be reached, once until
// it can be again.
func (a *App) targetFailed(f *forward, err error) {
	if !f.unreachable.CompareAndSwap(false, true) {
		return
	}
	sentence, ok := a.opts.Explain(err)
	if !ok {
		sentence = fmt.Sprintf("cannot reach %s from the workspace: %v", f.target, err)
	}
	a.opts.OnProblem(Problem{Forward: f.bound, Sentence: sentence, Err: err})
}

// works notes that the target of a forward has answered.
func (f *forward) works() {
	if f.unreachable.Load() {
		f.unreachable.Store(false)
	}
}
