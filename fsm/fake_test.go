package fsm

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tunneler/tunneler/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call is one call of a tunneler to its client, which the test answers.
type call[T any] struct {
	ctx   context.Context
	req   DialRequest        // of a dial
	conn  Conn               // of an application start
	emit  func(events.Event) // of a dial
	reply chan func() (T, error)
	deaf  bool // it does not look at ctx
	at    time.Time
}

// answer lets the call return, and the world come to rest.
func (c *call[T]) answer(v T, err error) {
	c.reply <- func() (T, error) { return v, err }
	synctest.Wait()
}

func (c *call[T]) wait() (T, error) {
	if c.deaf {
		return (<-c.reply)()
	}
	select {
	case r := <-c.reply:
		return r()
	case <-c.ctx.Done():
		var none T
		return none, c.ctx.Err()
	}
}

// fake is a Client that does what the test says, call by call.
type fake struct {
	emit     func(events.Event) // of the watch
	endWatch chan error
	mu       sync.Mutex
	deaf     bool // calls from now on do not look at their context
	starts   []*call[events.StartResult]
	dials    []*call[Conn]
	apps     []*call[App]
}

func record[T any](f *fake, to *[]*call[T], c *call[T]) *call[T] {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.reply, c.deaf, c.at = make(chan func() (T, error)), f.deaf, time.Now()
	*to = append(*to, c)
	return c
}

func (f *fake) Watch(ctx context.Context, emit func(events.Event)) error {
	f.mu.Lock()
	f.emit = emit
	f.mu.Unlock()
	select {
	case err := <-f.endWatch:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fake) StartWorkspace(ctx context.Context) events.StartResult {
	res, err := record(f, &f.starts, &call[events.StartResult]{ctx: ctx}).wait()
	if err != nil {
		res.Err = err
	}
	return res
}

func (f *fake) Dial(ctx context.Context, req DialRequest, emit func(events.Event)) (Conn, error) {
	return record(f, &f.dials, &call[Conn]{ctx: ctx, req: req, emit: emit}).wait()
}

func (f *fake) StartApp(ctx context.Context, conn Conn) (App, error) {
	return record(f, &f.apps, &call[App]{ctx: ctx, conn: conn}).wait()
}

// thing is a connection or an application, and remembers what was done to it.
type thing struct {
	mu     sync.Mutex
	done   chan struct{}
	err    error
	did    []string
	sticky bool // does not end when it is asked to in order, only when closed
	stuck  bool // does not end when it is closed either, only by die
}

func newThing() *thing { return &thing{done: make(chan struct{})} }

func (x *thing) Done() <-chan struct{} { return x.done }

func (x *thing) Err() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

func (x *thing) note(what string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.did = append(x.did, what)
}

func (x *thing) history() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.did)
}

// die ends it, by itself or because it was asked to.
func (x *thing) die(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	select {
	case <-x.done:
	default:
		x.err = err
		close(x.done)
	}
}

func (x *thing) ended() bool {
	select {
	case <-x.done:
		return true
	default:
		return false
	}
}

func (x *thing) Close() error {
	x.note("close")
	if !x.stuck {
		x.die(nil)
	}
	return nil
}

// Attach, Detach and Shutdown are an application's.
func (x *thing) Attach(Conn) { x.note("attach") }
func (x *thing) Detach()     { x.note("detach") }

func (x *thing) Shutdown(ctx context.Context) error {
	x.note("shutdown")
	if !x.sticky {
		x.die(nil)
		return nil
	}
	select {
	case <-x.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("closed at once: %w", ctx.Err())
	}
}

// stage is a tunneler in a synctest bubble, with a fake for a world.
type stage struct {
	*fake
	t      *testing.T
	tun    *Tunneler
	cancel context.CancelCauseFunc
	seen   []Transition
	began  time.Time
	result chan error // what Run has returned
	conn   *thing     // the last that was handed over
	app    *thing
}

// bubble runs a test in a bubble. At its end the tunneler must be down.
func bubble(t *testing.T, cfg Config, play func(*stage)) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, cfg)
		s.run()
		play(s)
		s.ended()
	})
}

func newStage(t *testing.T, cfg Config) *stage {
	s := &stage{t: t, fake: &fake{endWatch: make(chan error)}, began: time.Now(), result: make(chan error, 1)}
	s.tun = New(s.fake, cfg)
	s.tun.Observe(func(tr Transition) { s.seen = append(s.seen, tr) })
	return s
}

func (s *stage) run() {
	ctx, cancel := context.WithCancelCause(s.t.Context())
	s.cancel = cancel
	go func() { s.result <- s.tun.Run(ctx) }()
	synctest.Wait()
}

// ended waits for the end and gives what Run has returned; whatever was brought
// up has ended too.
func (s *stage) ended() error {
	<-s.tun.Done()
	synctest.Wait()
	require.Equal(s.t, Exit, s.tun.State())
	for _, x := range []*thing{s.conn, s.app} {
		require.True(s.t, x == nil || x.ended(), "something is left open")
	}
	for _, c := range s.dials {
		require.Error(s.t, c.ctx.Err(), "a dial's context lives on")
	}
	require.Zero(s.t, s.tun.Count(Unexpected))
	s.cancel(nil)
	return s.tun.Err()
}

// say lets the watch tell something.
func (s *stage) say(words ...string) {
	for _, w := range words {
		s.emit(readEvent(s.t, w))
		synctest.Wait()
	}
}

// connect answers the last dial with a new connection.
func (s *stage) connect() {
	s.conn = newThing()
	s.dials[len(s.dials)-1].answer(s.conn, nil)
}

// serve answers the last application start with a new application.
func (s *stage) serve() {
	s.app = newThing()
	s.apps[len(s.apps)-1].answer(s.app, nil)
}

func (s *stage) in(want State) {
	s.t.Helper()
	require.Equal(s.t, want.String(), s.tun.State().String())
}

// since is how long the tunneler has been running, in fake time.
func (s *stage) since() time.Duration { return time.Since(s.began) }

// reach are the shortest ways to every state but exit.
var reach = map[State]func(*stage){
	Init:                    func(*stage) {},
	WaitToStart:             func(s *stage) { s.say("build=1:stop/running") },
	WaitForWorkspaceStarted: func(s *stage) { s.say("build=1:stop/succeeded") },
	WaitForAgent:            func(s *stage) { s.say("build=1:start/succeeded") },
	EstablishTailnet:        func(s *stage) { s.say("build=1:start/succeeded", "agent=a@1:ready") },
	TailnetUp:               func(s *stage) { s.say("build=1:start/succeeded", "agent=a@1:ready"); s.connect() },
	ApplicationUp:           func(s *stage) { s.say("build=1:start/succeeded", "agent=a@1:ready"); s.connect(); s.serve() },
	ShutdownApplication: func(s *stage) {
		s.say("build=1:start/succeeded", "agent=a@1:ready")
		s.connect()
		s.serve()
		s.app.sticky = true
		s.say("build=2:delete/running")
	},
	ShutdownTailnet: func(s *stage) {
		s.deaf = true
		s.say("build=1:start/succeeded", "agent=a@1:ready")
		s.say("build=2:delete/running")
	},
}

// inEveryState runs a test in each state but exit.
func inEveryState(t *testing.T, cfg Config, play func(*stage, State)) {
	require.Len(t, reach, numStates-1)
	for _, state := range slices.Sorted(maps.Keys(reach)) {
		t.Run(state.String(), func(t *testing.T) {
			bubble(t, cfg, func(s *stage) {
				reach[state](s)
				s.in(state)
				play(s, state)
			})
		})
	}
}
