package provision

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// fakeSystem is a system without processes. Its start fails with startErr, if that is set.
type fakeSystem struct {
	mu       sync.Mutex
	startErr error
	starts   []time.Time
	procs    []*fakeProcess
	sweeps   int
	killErr  error
}

func (f *fakeSystem) start(command) (process, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.starts = append(f.starts, time.Now())
	if f.startErr != nil {
		return nil, f.startErr
	}
	p := &fakeProcess{system: f, id: identity{PID: 1000 + len(f.procs)}, died: make(chan struct{})}
	f.procs = append(f.procs, p)
	return p, nil
}

func (f *fakeSystem) find(string, string, identity) (process, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.procs) == 0 || f.procs[len(f.procs)-1].dead {
		return nil, false
	}
	return f.procs[len(f.procs)-1], true
}

func (f *fakeSystem) marked(string) ([]string, error) { return nil, nil }

func (f *fakeSystem) sweep(context.Context, string, string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sweeps++
	return f.killErr
}

// last is the newest process.
func (f *fakeSystem) last() *fakeProcess {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.procs[len(f.procs)-1]
}

type fakeProcess struct {
	system *fakeSystem
	id     identity
	dead   bool
	died   chan struct{}
	log    []string
}

func (p *fakeProcess) identity() identity { return p.id }

func (p *fakeProcess) wait(ctx context.Context) error {
	select {
	case <-p.died:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *fakeProcess) note(what string) {
	p.system.mu.Lock()
	defer p.system.mu.Unlock()
	p.log = append(p.log, what)
}

// die ends the process by itself.
func (p *fakeProcess) die() {
	p.system.mu.Lock()
	defer p.system.mu.Unlock()
	if !p.dead {
		p.dead = true
		close(p.died)
	}
}

func (p *fakeProcess) terminate() error                    { p.note("terminate"); return nil }
func (p *fakeProcess) waitGroup(ctx context.Context) error { return p.wait(ctx) }
func (p *fakeProcess) reap() Status                        { p.note("reap"); return Status{Known: true, Code: 1} }
func (p *fakeProcess) release()                            { p.note("release") }

func (p *fakeProcess) kill(context.Context) error {
	p.note("kill")
	if err := p.system.killErr; err != nil {
		return err
	}
	p.die()
	return nil
}

// fake makes a provisioner of fake processes.
func fake(t *testing.T, cfg Config) (*Process, *fakeSystem) {
	t.Helper()
	sys := &fakeSystem{}
	cfg.StateDir = t.TempDir()
	p, err := newProcess(cfg, sys)
	require.NoError(t, err)
	return p, sys
}

func TestAProcessThatKeepsEndingIsStartedAgainEverMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var exits []Exit
		var restarts []Restart
		p, sys := fake(t, Config{
			OnExit:    func(e Exit) { exits = append(exits, e) },
			OnRestart: func(r Restart) { restarts = append(restarts, r) },
		})
		instance, err := p.Start(t.Context(), shellSpec(t.TempDir(), "x"), nil)
		require.NoError(t, err)
		instance.Established()

		want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}
		for i, seconds := range want {
			died := time.Now()
			sys.last().die()
			time.Sleep(seconds*time.Second - time.Millisecond)
			synctest.Wait()
			require.Len(t, restarts, i, "not before %d s", seconds)
			require.Zero(t, instance.PID())
			time.Sleep(time.Millisecond)
			synctest.Wait()
			require.Len(t, restarts, i+1)
			require.Equal(t, i+1, restarts[i].Attempt)
			require.Equal(t, sys.last().id.PID, instance.PID())
			require.Equal(t, seconds*time.Second, exits[i].RestartIn)
			require.Equal(t, died.Add(seconds*time.Second), sys.starts[i+1])
		}

		// One that has lived for a minute begins anew.
		time.Sleep(stableAfter)
		sys.last().die()
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 1, restarts[len(restarts)-1].Attempt)
		require.Equal(t, time.Second, exits[len(exits)-1].RestartIn)

		last := sys.last()
		go last.die() // as it does when it is asked to stop
		require.NoError(t, p.Stop(t.Context(), "ws-1", nil))
		require.NoError(t, p.Close())
		select {
		case <-instance.Exited():
		default:
			require.Fail(t, "the instance has not ended")
		}
	})
}

func TestARestartThatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var restarts []Restart
		p, sys := fake(t, Config{OnRestart: func(r Restart) { restarts = append(restarts, r) }})
		out := newLines()
		instance, err := p.Start(t.Context(), shellSpec(t.TempDir(), "x"), out.out)
		require.NoError(t, err)
		instance.Established()
		sys.mu.Lock()
		sys.startErr = errors.New("no more processes")
		sys.mu.Unlock()
		sys.last().die()
		time.Sleep(3 * time.Second) // after 1 and 2 more seconds
		synctest.Wait()
		require.Len(t, sys.starts, 3)
		require.Empty(t, restarts)
		require.Equal(t, "cannot be started again: no more processes", out.find(t, "cannot").Text)
		sys.mu.Lock()
		sys.startErr = nil
		sys.mu.Unlock()
		time.Sleep(4 * time.Second)
		synctest.Wait()
		require.Len(t, restarts, 1)
		require.Equal(t, 3, restarts[0].Attempt)
		require.NoError(t, p.Close())
		require.Contains(t, sys.last().log, "release", "the process lives on")
	})
}

func TestNothingIsStartedOnceTheWorkspaceIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, sys := fake(t, Config{})
		instance, err := p.Start(t.Context(), shellSpec(t.TempDir(), "x"), nil)
		require.NoError(t, err)
		instance.Established()
		sys.last().die()
		synctest.Wait() // now it pauses
		require.NoError(t, p.Stop(t.Context(), "ws-1", nil))
		<-instance.Exited()
		require.NoError(t, instance.Err())
		time.Sleep(time.Hour)
		require.Len(t, sys.starts, 1)
		require.Equal(t, 1, sys.sweeps)
		require.NoError(t, p.Close())
	})
}

func TestAPauseEndsWithTheProvisioner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, sys := fake(t, Config{})
		instance, err := p.Start(t.Context(), shellSpec(t.TempDir(), "x"), nil)
		require.NoError(t, err)
		instance.Established()
		sys.last().die()
		synctest.Wait()
		require.NoError(t, p.Close())
		require.Len(t, sys.starts, 1)
	})
}

func TestAProcessIsAskedWaitedForKilledAndReapedInThisOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, sys := fake(t, Config{})
		_, err := p.Start(t.Context(), shellSpec(t.TempDir(), "x"), nil)
		require.NoError(t, err)
		start := time.Now()
		require.NoError(t, p.Stop(t.Context(), "ws-1", nil))
		require.Equal(t, defaultGrace, time.Since(start))
		require.Equal(t, []string{"terminate", "kill", "reap"}, sys.last().log)
		require.NoError(t, p.Close())
	})
}

func TestProcessesThatCannotBeEndedAreSaidAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, sys := fake(t, Config{})
		dir := t.TempDir()
		instance, err := p.Start(t.Context(), shellSpec(dir, "x"), nil)
		require.NoError(t, err)
		stragglers := &StragglerError{WorkspaceID: "ws-1", PIDs: []int{1000}}
		sys.mu.Lock()
		sys.killErr = stragglers
		sys.mu.Unlock()
		require.ErrorIs(t, p.Stop(t.Context(), "ws-1", nil), stragglers)
		<-instance.Exited()
		require.ErrorIs(t, instance.Err(), stragglers)
		require.NotContains(t, sys.last().log, "reap", "that might wait for ever")

		_, err = p.Start(t.Context(), Spec{
			WorkspaceID: "ws-1", WorkspaceName: "demo", Build: 4, Dir: dir, Agent: AgentSpec{Argv: []string{"/bin/false"}},
		}, nil)
		var busy *BusyError
		require.ErrorAs(t, err, &busy, "its record is kept")
		require.ErrorIs(t, p.Stop(t.Context(), "ws-1", nil), stragglers)

		sys.mu.Lock()
		sys.killErr = nil
		sys.mu.Unlock()
		require.NoError(t, p.Stop(t.Context(), "ws-1", nil))
		ids, err := p.records.list()
		require.NoError(t, err)
		require.Empty(t, ids)
		require.NoError(t, p.Close())
	})
}

func TestALockIsLeftByThoseWhoGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k keyLock
		unlock, err := k.lock(t.Context(), "a")
		require.NoError(t, err)
		other, err := k.lock(t.Context(), "b")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = k.lock(ctx, "a")
		require.ErrorIs(t, err, context.DeadlineExceeded)

		order := make(chan string, 2)
		go func() {
			unlock, err := k.lock(context.Background(), "a")
			if err == nil {
				order <- "second"
				unlock()
			}
			close(order)
		}()
		synctest.Wait()
		order <- "first"
		unlock()
		require.Equal(t, []string{"first", "second"}, slices.Collect(func(yield func(string) bool) {
			for s := range order {
				if !yield(s) {
					return
				}
			}
		}))
		other()
		require.Empty(t, k.locks)
	})
}
