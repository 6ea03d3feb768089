package fsm

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tunneler/tunneler/events"
)

// chance is a client of which nobody knows what it does next: everything takes
// some time, fails sometimes, and sometimes pays no heed to its context.
type chance struct {
	mu     sync.Mutex
	rand   *rand.Rand
	things []*thing // all that was ever brought up
	dials  int      // in flight
	starts int
	bad    string
}

func (c *chance) roll(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rand.IntN(n)
}

// linger waits a random time; false when ctx ended and it has looked.
func (c *chance) linger(ctx context.Context) bool {
	d := time.Duration(c.roll(int(20 * time.Second)))
	if c.roll(4) == 0 {
		time.Sleep(d)
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *chance) Watch(ctx context.Context, emit func(events.Event)) error {
	b := events.BuildUpdate{Number: 1, Transition: events.TransitionStop, Status: events.JobSucceeded}
	agents := 0
	for c.linger(ctx) && ctx.Err() == nil {
		switch c.roll(6) {
		case 0:
			emit(events.WatchUpdate{State: events.WatchRetrying})
		case 1:
			agents++
			fallthrough
		case 2, 3:
			emit(events.AgentUpdate{
				ID: string(rune('a' + agents%26)), Build: b.Number, Status: events.AgentConnected,
				Lifecycle: []events.Lifecycle{events.LifecycleReady, events.LifecycleStarting, events.LifecycleStartError}[c.roll(3)]})
		case 4:
			emit(events.BuildLog{})
		default:
			b.Number++
			b.Transition = []events.Transition{events.TransitionStart, events.TransitionStart, events.TransitionStop}[c.roll(3)]
			b.Status = []events.JobStatus{events.JobSucceeded, events.JobRunning}[c.roll(2)]
			emit(b)
		}
		if c.roll(60) == 0 {
			return errWatching
		}
	}
	return ctx.Err()
}

// enter counts what is in flight; there may be one of a kind.
func (c *chance) enter(n *int, what string) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *n++; *n > 1 {
		c.bad = "two at a time: " + what
	}
	return func() { c.mu.Lock(); *n--; c.mu.Unlock() }
}

func (c *chance) StartWorkspace(ctx context.Context) events.StartResult {
	defer c.enter(&c.starts, "StartWorkspace")()
	if !c.linger(ctx) {
		return events.StartResult{Err: ctx.Err()}
	}
	if c.roll(20) == 0 {
		return events.StartResult{Err: errRefused}
	}
	return events.StartResult{Build: 2, Conflict: c.roll(2) == 0}
}

func (c *chance) bring(ctx context.Context, failure error) (*thing, error) {
	switch {
	case !c.linger(ctx):
		return nil, ctx.Err()
	case c.roll(3) == 0:
		return nil, failure
	}
	x := newThing()
	x.sticky = c.roll(5) == 0
	c.mu.Lock()
	c.things = append(c.things, x)
	c.mu.Unlock()
	if c.roll(2) == 0 {
		time.AfterFunc(time.Duration(c.roll(int(time.Minute))), func() { x.die(failure) })
	}
	return x, nil
}

func (c *chance) Dial(ctx context.Context, _ DialRequest, emit func(events.Event)) (Conn, error) {
	defer c.enter(&c.dials, "Dial")()
	x, err := c.bring(ctx, errDial)
	if err != nil {
		return nil, err
	}
	emit(events.PathUpdate{Kind: events.PathRelay})
	return x, nil
}

func (c *chance) StartApp(ctx context.Context, _ Conn) (App, error) {
	x, err := c.bring(ctx, errApp)
	if err != nil {
		return nil, err
	}
	return x, nil
}

// TestAnyLifeEndsWithEverythingClosed: whatever the world does, and however and
// whenever the end comes, Run returns, and everything that was ever brought up
// is down by then. The bubble holds that no goroutine is left.
func TestAnyLifeEndsWithEverythingClosed(t *testing.T) {
	seen := make(map[State]bool)
	for _, o := range []OnStop{OnStopExit, OnStopWait, OnStopRestart} {
		t.Run(o.String(), rapid.MakeCheck(func(t *rapid.T) {
			seed := rapid.Uint64().Draw(t, "seed")
			rapid.SyncTest(t, func(t *rapid.T) {
				c := &chance{rand: rand.New(rand.NewPCG(seed, 0))}
				tun := New(c, Config{OnStop: o, MaxAttempts: c.roll(4)})
				tun.Observe(func(tr Transition) { seen[tr.To] = true })
				live(t, c, tun)
			})
		}))
	}
	require.Len(t, seen, numStates, "not every state was lived through")
}

// live runs a tunneler for a random time and ends it in a random way.
func live(t *rapid.T, c *chance, tun *Tunneler) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- tun.Run(ctx) }()
	synctest.Wait()
	select {
	case <-time.After(time.Duration(c.roll(int(10 * time.Minute)))):
	case <-tun.Done():
	}
	switch c.roll(4) {
	case 0:
		tun.Abort()
	case 1:
		cancel()
	case 2:
		hurry, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		_ = tun.Shutdown(hurry)
	default:
		require.NoError(t, tun.Shutdown(context.Background()))
	}
	err := <-result
	require.Equal(t, err, tun.Err())
	require.Equal(t, Exit, tun.State())
	require.Zero(t, tun.Count(Unexpected))
	require.Empty(t, c.bad)
	for _, x := range c.things {
		require.True(t, x.ended(), "something is left open")
	}
	time.Sleep(time.Hour) // let the world's own timers run out
	synctest.Wait()
}
