package fsm

import (
	"context"
	"errors"
	"io"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

// perform does what the machine wants done. What takes time runs in a
// goroutine that posts exactly one answer to each start; what a goroutine has
// brought up and cannot hand over any more it closes itself.
func (t *Tunneler) perform(effects []Effect) {
	for _, e := range effects {
		switch e.Kind {
		case EffectStartWorkspace:
			t.spawn(func() { t.post(t.client.StartWorkspace(t.ctx)) })
		case EffectDial:
			t.dial(DialRequest{Agent: e.Agent, Build: e.Build, Attempt: e.Attempt})
		case EffectCancelDial:
			t.undial()
		case EffectStartApp:
			t.startApp(t.conn)
		case EffectCancelAppStart:
			t.unstart()
		case EffectCloseApp:
			app := t.app
			t.spawn(func() { t.logClose("application", app.Shutdown(t.ctx)) })
		case EffectAttach:
			t.app.Attach(t.conn)
		case EffectDetach:
			t.app.Detach()
		case EffectCloseConn:
			conn := t.conn
			t.spawn(func() { t.logClose("connection", conn.Close()) })
		case EffectCloseHanded:
			t.spawn(func() { t.logClose("unexpected handle", e.Handle.Close()) })
		case EffectArmRetry:
			t.retry.arm(t.cfg.Backoff.delay(e.Attempt, t.cfg.Rand))
		case EffectArmDeadline:
			if d := t.cfg.deadline(e.State); d > 0 {
				t.deadline.arm(d)
			}
		case EffectCancelTimers:
			t.retry.stop()
			t.deadline.stop()
		case EffectReport:
			// Observers see every step; a report says that this one is for people.
		case EffectAbort:
			t.cancel()
		case EffectFinish:
			t.finished = true
		}
	}
}

func (t *Tunneler) spawn(f func()) { t.pending.Go(f) }

func (t *Tunneler) logClose(what string, err error) {
	if err != nil {
		t.log.Debug("closing failed", zap.String("what", what), zap.Error(err))
	}
}

var errWatchEnded = errors.New("the watch ended by itself")

func (t *Tunneler) watch() {
	err := t.client.Watch(t.ctx, func(ev events.Event) { t.post(ev) })
	if t.ctx.Err() != nil {
		return
	}
	if err == nil {
		err = errWatchEnded
	}
	t.post(events.WatchUpdate{State: events.WatchLost, Err: err})
}

// handle is what Conn and App have in common.
type handle interface {
	io.Closer
	Done() <-chan struct{}
	Err() error
}

// live waits for the end of what was brought up and handed over; when the
// tunneler ends first, it closes it.
func (t *Tunneler) live(h handle) {
	select {
	case <-h.Done():
	case <-t.ctx.Done():
		t.logClose("at exit", h.Close())
		<-h.Done()
	}
}

var (
	errNothing    = errors.New("no error and nothing to show for it")
	errUnanswered = errors.New("no answer before the dial was given up")
)

func (t *Tunneler) dial(req DialRequest) {
	ctx, cancel := context.WithCancel(t.ctx)
	t.undial = cancel
	t.spawn(func() {
		defer cancel()
		conn, err := t.client.Dial(ctx, req, func(ev events.Event) { t.post(ev) })
		switch {
		case err == nil && conn == nil:
			err = errNothing
		case errors.Is(err, context.Canceled) && ctx.Err() != nil:
			err = errUnanswered // "context canceled" is nothing to tell a person
		}
		if err != nil {
			t.post(events.TailnetUpdate{Err: err})
			return
		}
		began := time.Now()
		if !t.post(events.TailnetUpdate{Up: true, Conn: conn}) {
			t.logClose("connection", conn.Close())
			<-conn.Done()
			return
		}
		t.live(conn)
		t.post(events.TailnetUpdate{Err: conn.Err(), Lived: max(time.Since(began), 1)})
	})
}

func (t *Tunneler) startApp(conn Conn) {
	ctx, cancel := context.WithCancel(t.ctx)
	t.unstart = cancel
	t.spawn(func() {
		defer cancel()
		app, err := t.client.StartApp(ctx, conn)
		if err == nil && app == nil {
			err = errNothing
		}
		if err != nil {
			t.post(events.AppUpdate{Err: err})
			return
		}
		if !t.post(events.AppUpdate{Up: true, App: app}) {
			t.logClose("application", app.Close())
			<-app.Done()
			return
		}
		t.live(app)
		t.post(events.AppUpdate{Err: app.Err()})
	})
}
