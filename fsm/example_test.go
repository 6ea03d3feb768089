package fsm_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/fsm"
)

// memory is a client whose workspace is a value in memory. A real one speaks to
// a coordinator, dials and forwards; what a tunneler asks of it is the same.
type memory struct{ started chan struct{} }

func newMemory() *memory { return &memory{started: make(chan struct{})} }

// Watch tells what there is, and from then on what changes.
func (m *memory) Watch(ctx context.Context, emit func(events.Event)) error {
	emit(events.WatchUpdate{State: events.WatchUp})
	emit(events.BuildUpdate{Number: 1, Transition: events.TransitionStop, Status: events.JobSucceeded})
	select {
	case <-m.started:
	case <-ctx.Done():
		return ctx.Err()
	}
	emit(events.BuildUpdate{Number: 2, Transition: events.TransitionStart, Status: events.JobSucceeded})
	emit(events.AgentUpdate{ID: "a", Build: 2, Lifecycle: events.LifecycleReady, Status: events.AgentConnected})
	<-ctx.Done()
	return ctx.Err()
}

// StartWorkspace asks for a start build; what comes of it, the watch tells.
func (m *memory) StartWorkspace(context.Context) events.StartResult {
	close(m.started)
	return events.StartResult{Build: 2}
}

// Dial brings up a connection; emit takes what carries it.
func (m *memory) Dial(_ context.Context, _ fsm.DialRequest, emit func(events.Event)) (fsm.Conn, error) {
	emit(events.PathUpdate{Kind: events.PathDirect})
	return newHandle(), nil
}

// StartApp starts what is to run on the connection.
func (m *memory) StartApp(context.Context, fsm.Conn) (fsm.App, error) { return newHandle(), nil }

// handle is a connection or an application that does nothing but end.
type handle struct {
	once sync.Once
	done chan struct{}
}

func newHandle() *handle { return &handle{done: make(chan struct{})} }

func (h *handle) Close() error                   { h.once.Do(func() { close(h.done) }); return nil }
func (h *handle) Done() <-chan struct{}          { return h.done }
func (h *handle) Err() error                     { return nil }
func (h *handle) Attach(fsm.Conn)                {}
func (h *handle) Detach()                        {}
func (h *handle) Shutdown(context.Context) error { return h.Close() }

// A tunnel comes up and goes down in order.
func Example() {
	t := fsm.New(newMemory(), fsm.Config{Timeout: time.Minute})
	up := make(chan struct{})
	t.Observe(func(tr fsm.Transition) {
		if tr.From != tr.To {
			fmt.Printf("%s: %s -> %s\n", tr.Trigger, tr.From, tr.To)
		}
		if tr.Outcome == fsm.Moved && tr.To == fsm.ApplicationUp {
			close(up)
		}
	})
	go func() { _ = t.Run(context.Background()) }()
	select {
	case <-up:
	case <-t.Done():
	}
	_ = t.Shutdown(context.Background())
	fmt.Println("error:", t.Err())
	// Output:
	// stopSucceeded: init -> waitForWorkspaceStarted
	// startSucceeded: waitForWorkspaceStarted -> waitForAgent
	// agentReady: waitForAgent -> establishTailnet
	// tailnetUp: establishTailnet -> tailnetUp
	// appUp: tailnetUp -> applicationUp
	// shutdown: applicationUp -> shutdownApplication
	// appDown: shutdownApplication -> shutdownTailnet
	// tailnetDown: shutdownTailnet -> exit
	// error: <nil>
}

// phases adds up how long a tunneler was in each state.
type phases struct {
	since time.Time
	spent map[fsm.State]time.Duration
}

func (p *phases) observe(tr fsm.Transition) {
	if tr.From == tr.To {
		return
	}
	p.spent[tr.From] += tr.Time.Sub(p.since)
	p.since = tr.Time
}

// What a harness wants to know of a tunnel: how long each phase took.
func ExampleTunneler_Observe() {
	t := fsm.New(newMemory(), fsm.Config{})
	p := &phases{since: time.Now(), spent: make(map[fsm.State]time.Duration)}
	t.Observe(p.observe)
	t.Observe(func(tr fsm.Transition) {
		if tr.To == fsm.ApplicationUp {
			t.Abort()
		}
	})
	_ = t.Run(context.Background())
	for s := fsm.Init; s < fsm.Exit; s++ {
		if d, ok := p.spent[s]; ok {
			fmt.Println(s, d < time.Minute)
		}
	}
	// Output:
	// init true
	// waitForWorkspaceStarted true
	// waitForAgent true
	// establishTailnet true
	// tailnetUp true
	// applicationUp true
}

// broken is a workspace whose start build fails.
type broken struct{ *memory }

func (b broken) Watch(ctx context.Context, emit func(events.Event)) error {
	emit(events.BuildUpdate{Number: 7, Transition: events.TransitionStart, Status: events.JobRunning})
	emit(events.BuildUpdate{Number: 7, Transition: events.TransitionStart, Status: events.JobFailed, Error: "disk full"})
	<-ctx.Done()
	return ctx.Err()
}

// Why a tunnel ended is an *Error: a sentence for a person, and for a program a
// reason to compare with and the cause.
func ExampleError() {
	err := fsm.New(broken{newMemory()}, fsm.Config{}).Run(context.Background())
	fmt.Println(err)
	fmt.Println("deleted:", errors.Is(err, fsm.ErrDeleted))
	fmt.Println("build failed:", errors.Is(err, fsm.ErrBuildFailed))
	var e *fsm.Error
	if errors.As(err, &e) {
		fmt.Println("in state:", e.State)
	}
	var build *fsm.BuildError
	if errors.As(err, &build) {
		fmt.Println("build:", build.Number, build.Message)
	}
	// Output:
	// the workspace's build failed: start build 7 failed: disk full
	// deleted: false
	// build failed: true
	// in state: waitForWorkspaceStarted
	// build: 7 disk full
}

// fleet runs many tunnelers in one process.
type fleet struct {
	tunnelers []*fsm.Tunneler
	up, down  sync.WaitGroup
}

func newFleet(n int) *fleet {
	f := &fleet{}
	for range n {
		t := fsm.New(newMemory(), fsm.Config{})
		f.up.Add(1)
		t.Observe(func(tr fsm.Transition) {
			if tr.Outcome == fsm.Moved && tr.To == fsm.ApplicationUp {
				f.up.Done()
			}
		})
		f.tunnelers = append(f.tunnelers, t)
		f.down.Go(func() { _ = t.Run(context.Background()) })
	}
	return f
}

// shutdown takes them all down and waits for it.
func (f *fleet) shutdown() {
	for _, t := range f.tunnelers {
		go func() { _ = t.Shutdown(context.Background()) }()
	}
	f.down.Wait()
}

// count is how many are in a state.
func (f *fleet) count(s fsm.State) (n int) {
	for _, t := range f.tunnelers {
		if t.State() == s {
			n++
		}
	}
	return n
}

// A thousand tunnelers live in one process.
func Example_thousand() {
	f := newFleet(1000)
	f.up.Wait()
	fmt.Println("up:", f.count(fsm.ApplicationUp))
	f.shutdown()
	fmt.Println("down:", f.count(fsm.Exit))
	// Output:
	// up: 1000
	// down: 1000
}
