package fsm

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

// Tunneler brings one tunnel up, keeps it up and takes it down. Thousands of
// them live in one process: each is a loop, a watch, and the effects in flight.
type Tunneler struct {
	client Client
	cfg    Config
	log    *zap.Logger
	seen   []func(Transition)

	inbox    chan events.Event
	shutdown chan struct{} // closed by Shutdown
	abort    chan struct{} // closed by Abort
	stopped  chan struct{} // closed when the loop takes no more events
	done     chan struct{} // closed when everything is closed
	closing  sync.Once
	aborting sync.Once
	ran      atomic.Bool
	state    atomic.Uint32
	err      error // written before done is closed
	counts   [Replayed + 1]atomic.Uint64

	// The loop's own.
	m        *machine
	ctx      context.Context // of everything that the tunneler does
	cancel   context.CancelFunc
	pending  sync.WaitGroup // goroutines that perform effects
	finished bool
	conn     Conn
	app      App
	undial   context.CancelFunc
	unstart  context.CancelFunc
	retry    timer
	deadline timer
	overall  timer
}

// Transition is one step of a tunneler, as its observers see it.
type Transition struct {
	// Time is when the step was taken.
	Time time.Time
	// From and To are the states before and after it.
	From, To State
	// Trigger is what the event amounted to.
	Trigger Trigger
	// Outcome is how it was taken; Stale and Replayed events fire nothing.
	Outcome Outcome
	// Event is what came.
	Event events.Event
	// Attempt is the number of dials since the last stable connection.
	Attempt int
}

// ErrReused is returned by Run when it is called again: a Tunneler runs once.
var ErrReused = errors.New("the tunneler has run already, or was shut down before it ran")

// New makes a tunneler that is not yet running.
func New(client Client, cfg Config) *Tunneler {
	cfg = cfg.withDefaults()
	t := &Tunneler{
		client:   client,
		cfg:      cfg,
		log:      cfg.Logger,
		inbox:    make(chan events.Event),
		shutdown: make(chan struct{}),
		abort:    make(chan struct{}),
		stopped:  make(chan struct{}),
		done:     make(chan struct{}),
	}
	t.m = newMachine(cfg.rules())
	return t
}

// Observe calls f for every step, from the loop: f must not block and must not
// call back. It is to be set up before Run.
func (t *Tunneler) Observe(f func(Transition)) { t.seen = append(t.seen, f) }

// Run brings the tunnel up and returns when it is down and everything of it is
// closed: nil after Shutdown, else an *Error that says why. Cancelling ctx
// aborts.
func (t *Tunneler) Run(ctx context.Context) error {
	if !t.ran.CompareAndSwap(false, true) {
		return ErrReused
	}
	if t.err = t.cfg.check(); t.err != nil {
		close(t.stopped)
		close(t.done)
		return t.err
	}
	// Only the loop hears the end of ctx: what the others would have to say of it
	// must not come first and pass for the reason.
	t.ctx, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if t.cfg.Timeout > 0 {
		t.overall.arm(t.cfg.Timeout)
	}
	t.perform(t.m.begin())
	t.spawn(t.watch)
	t.loop(ctx)
	close(t.stopped)
	t.retry.stop()
	t.deadline.stop()
	t.overall.stop()
	t.cancel()
	t.pending.Wait()
	t.err = t.m.model.err()
	close(t.done)
	return t.err
}

// Shutdown takes the tunnel down in order, application first, and waits until
// everything is closed. When ctx ends first it aborts, waits all the same, and
// returns the error of ctx.
func (t *Tunneler) Shutdown(ctx context.Context) error {
	if t.ran.CompareAndSwap(false, true) {
		close(t.stopped)
		close(t.done)
		return nil
	}
	t.closing.Do(func() { close(t.shutdown) })
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		t.Abort()
		<-t.done
		return ctx.Err()
	}
}

// Abort takes the tunnel down at once. It does not wait: see Done.
func (t *Tunneler) Abort() { t.aborting.Do(func() { close(t.abort) }) }

// Done is closed when the tunnel is down and everything of it is closed.
func (t *Tunneler) Done() <-chan struct{} { return t.done }

// Err is what Run returned, once Done is closed; before that it is nil.
func (t *Tunneler) Err() error {
	select {
	case <-t.done:
		return t.err
	default:
		return nil
	}
}

// State is the current state.
func (t *Tunneler) State() State { return State(t.state.Load()) }

// Count is how many events were taken with this outcome.
func (t *Tunneler) Count(o Outcome) uint64 { return t.counts[o].Load() }

// loop owns the machine. It does no I/O and never blocks but here.
func (t *Tunneler) loop(ctx context.Context) {
	shutdown, abort, canceled := t.shutdown, t.abort, ctx.Done()
	for !t.finished {
		select {
		case ev := <-t.inbox:
			t.handle(ev)
		case <-t.retry.c:
			t.retry.fired()
			t.handle(events.RetryDue{})
		case <-t.deadline.c:
			t.deadline.fired()
			t.handle(events.Deadline{})
		case <-t.overall.c:
			t.overall.fired()
			t.handle(events.Timeout{})
		case <-shutdown:
			shutdown = nil
			t.handle(events.Shutdown{})
		case <-abort:
			abort = nil
			t.handle(events.Abort{})
		case <-canceled:
			canceled = nil
			t.handle(events.Abort{Err: context.Cause(ctx)})
		}
	}
}

func (t *Tunneler) handle(ev events.Event) {
	res, err := t.m.step(ev)
	if err != nil {
		// The table's check excludes it; if it happens all the same the machine
		// has not moved, and aborting is the one thing that is surely right.
		t.log.Error("the state machine failed", zap.Stringer("state", res.from), zap.Stringer("trigger", res.trigger), zap.Error(err))
		t.m.state, t.finished = Exit, true
		t.state.Store(uint32(Exit))
		t.m.model.down, t.m.model.cause, t.m.model.causeErr = true, ReasonAborted, err
		return
	}
	t.counts[res.outcome].Add(1)
	t.state.Store(uint32(t.m.state))
	if res.outcome == Unexpected {
		t.log.Error("unexpected event", zap.Stringer("state", res.from), zap.Stringer("trigger", res.trigger))
	} else {
		t.keep(ev)
	}
	t.perform(res.effects)
	if len(t.seen) == 0 {
		return
	}
	tr := Transition{
		Time: time.Now(), From: res.from, To: t.m.state, Trigger: res.trigger,
		Outcome: res.outcome, Event: ev, Attempt: t.m.model.attempt,
	}
	for _, f := range t.seen {
		f(tr)
	}
}

// keep takes over what an expected answer hands over, or lets go of it.
func (t *Tunneler) keep(ev events.Event) {
	switch ev := ev.(type) {
	case events.TailnetUpdate:
		t.conn, _ = ev.Conn.(Conn)
	case events.AppUpdate:
		t.app, _ = ev.App.(App)
	}
}

// post hands an event to the loop; false when it takes no more.
func (t *Tunneler) post(ev events.Event) bool {
	select {
	case t.inbox <- ev:
		return true
	case <-t.stopped:
		return false
	}
}

// timer is a timer of the loop: c is nil unless it is armed, so that a timer
// which was stopped can never be heard.
type timer struct {
	t *time.Timer
	c <-chan time.Time
}

func (t *timer) arm(d time.Duration) {
	t.stop()
	t.t = time.NewTimer(d)
	t.c = t.t.C
}

func (t *timer) stop() {
	if t.t != nil {
		t.t.Stop()
	}
	t.fired()
}

func (t *timer) fired() { t.t, t.c = nil, nil }
