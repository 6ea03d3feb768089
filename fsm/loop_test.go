package fsm

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
)

// obliged lets go of what a test has held back on purpose, so that an orderly
// end is possible.
func obliged(s *stage, in State) {
	switch in {
	case ShutdownApplication:
		s.app.die(nil)
	case ShutdownTailnet:
		s.dials[0].answer(nil, errDial)
	default:
	}
}

func TestShutdownInEveryState(t *testing.T) {
	inEveryState(t, Config{}, func(s *stage, in State) {
		done := make(chan error, 1)
		go func() { done <- s.tun.Shutdown(s.t.Context()) }()
		synctest.Wait()
		obliged(s, in)
		require.NoError(s.t, <-done)
		switch err := <-s.result; in {
		case ShutdownApplication, ShutdownTailnet:
			require.ErrorIs(s.t, err, ErrDeleted, "the first cause stands")
		default:
			require.NoError(s.t, err)
		}
		require.NoError(s.t, s.tun.Shutdown(s.t.Context()), "a second shutdown is content")
		require.Zero(s.t, s.since(), "nothing waits for a timer")
		if s.app != nil {
			require.Equal(s.t, []string{"shutdown"}, s.app.history(), "closed once, and in order")
		}
		if s.conn != nil {
			require.Equal(s.t, []string{"close"}, s.conn.history(), "closed once")
		}
	})
}

// TestEndingAtOnceInEveryState: by Abort, and by the context of Run.
func TestEndingAtOnceInEveryState(t *testing.T) {
	for how, end := range map[string]func(*stage){
		"abort":                     func(s *stage) { s.tun.Abort() },
		"context cancelled":         func(s *stage) { s.cancel(nil) },
		"context ended for a cause": func(s *stage) { s.cancel(errOwner) },
		"both":                      func(s *stage) { s.tun.Abort(); s.cancel(nil) },
	} {
		t.Run(how, func(t *testing.T) {
			inEveryState(t, Config{}, func(s *stage, in State) {
				end(s)
				synctest.Wait()
				if in == ShutdownTailnet {
					s.in(Exit)
					s.dials[0].answer(nil, errDial) // it is deaf: Run waits for it
				}
				err := <-s.result
				require.Equal(s.t, err, s.tun.Err())
				if in == ShutdownApplication || in == ShutdownTailnet {
					require.ErrorIs(s.t, err, ErrDeleted, "the first cause stands")
				} else {
					require.ErrorIs(s.t, err, ErrAborted)
				}
				if how == "context ended for a cause" && in == Init {
					require.ErrorIs(s.t, err, errOwner)
				}
				require.Zero(s.t, s.since(), "nothing waits for a timer")
				if s.app != nil {
					require.Contains(s.t, s.app.history(), "close")
				}
				if s.conn != nil {
					require.Equal(s.t, []string{"close"}, s.conn.history())
				}
			})
		})
	}
}

// TestTheEndOfTheContextIsAnAbort, even if the loop is busy when it comes, and
// all the others have something to say of it by the time that it looks.
func TestTheEndOfTheContextIsAnAbort(t *testing.T) {
	for in := range reach {
		if in == ShutdownApplication || in == ShutdownTailnet {
			continue // there the first cause stands
		}
		t.Run(in.String(), func(t *testing.T) {
			for range 20 { // what the loop hears first is a matter of chance
				synctest.Test(t, func(t *testing.T) {
					s := newStage(t, Config{})
					busy := make(chan struct{})
					s.tun.Observe(func(tr Transition) {
						if tr.Trigger == TriggerPathChanged {
							<-busy
						}
					})
					s.run()
					reach[in](s)
					go s.emit(events.PathUpdate{})
					synctest.Wait()
					s.cancel(errOwner)
					synctest.Wait()
					close(busy)
					err := <-s.result
					require.ErrorIs(t, err, ErrAborted)
					require.ErrorIs(t, err, errOwner)
					s.ended()
				})
			}
		})
	}
}

// TestDeletedInEveryState: the world ends the tunnel, and nothing is left.
func TestDeletedInEveryState(t *testing.T) {
	inEveryState(t, Config{OnStop: OnStopRestart}, func(s *stage, in State) {
		s.say("build=3:delete/pending")
		obliged(s, in)
		require.ErrorIs(s.t, <-s.result, ErrDeleted)
	})
}

func TestShutdownThatTakesTooLongAborts(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		reach[ApplicationUp](s)
		s.app.sticky = true
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(s.t, s.tun.Shutdown(ctx), context.DeadlineExceeded)
		require.Equal(s.t, time.Second, s.since())
		require.True(s.t, s.app.ended() && s.conn.ended(), "it waits until everything is closed")
		require.NoError(s.t, <-s.result, "it was a shutdown all the same")
	})
}

func TestManyMayShutDown(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		reach[ApplicationUp](s)
		results := make(chan error, 10)
		for range cap(results) {
			go func() { results <- s.tun.Shutdown(s.t.Context()) }()
		}
		for range cap(results) {
			require.NoError(s.t, <-results)
		}
		require.Equal(s.t, []string{"shutdown"}, s.app.history())
	})
}

func TestShutdownBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, Config{})
		require.NoError(t, s.tun.Shutdown(t.Context()))
		<-s.tun.Done()
		require.NoError(t, s.tun.Err())
		require.NoError(t, s.tun.Shutdown(t.Context()))
		require.ErrorIs(t, s.tun.Run(t.Context()), ErrReused)
		require.Empty(t, s.dials)
	})
}

func TestRunTwice(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		require.ErrorIs(s.t, s.tun.Run(s.t.Context()), ErrReused)
		s.in(Init)
		s.tun.Abort()
		<-s.tun.Done()
		require.ErrorIs(s.t, s.tun.Run(s.t.Context()), ErrReused)
		require.ErrorIs(s.t, s.tun.Err(), ErrAborted, "the error of the first stands")
	})
}

func TestAbortBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, Config{})
		s.tun.Abort()
		s.tun.Abort()
		require.ErrorIs(t, s.tun.Run(t.Context()), ErrAborted)
	})
}

func TestRunWithAContextThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := s.tun.Run(ctx)
		require.ErrorIs(t, err, ErrAborted)
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestNothingIsKnownBeforeTheEnd(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		reach[ApplicationUp](s)
		require.NoError(s.t, s.tun.Err())
		select {
		case <-s.tun.Done():
			require.Fail(s.t, "it is up and says that it is done")
		default:
		}
		s.tun.Abort()
	})
}

// TestNoPostBlocksAfterExit: what the world still has to say is taken from it.
func TestNoPostBlocksAfterExit(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		reach[ApplicationUp](s)
		s.tun.Abort()
		<-s.tun.Done()
		n := len(s.seen)
		s.say("build=2:start/running", "buildLog")
		s.dials[0].emit(events.PathUpdate{})
		require.Len(s.t, s.seen, n, "and nobody sees it")
	})
}

// TestAFullTurn: the exact sequence that an observer sees.
func TestAFullTurn(t *testing.T) {
	bubble(t, Config{OnStop: OnStopWait}, func(s *stage) {
		s.say("watch=up", "build=1:stop/succeeded", "buildLog")
		time.Sleep(time.Second)
		s.starts[0].answer(events.StartResult{Build: 2}, nil)
		s.say("build=2:start/running", "build=2:start/running", "build=1:stop/succeeded")
		time.Sleep(2 * time.Second)
		s.say("build=2:start/succeeded", "agent=a@2:starting")
		time.Sleep(3 * time.Second)
		s.say("agent=a@2:ready")
		require.Equal(s.t, DialRequest{Agent: "a", Build: 2, Attempt: 1}, s.dials[0].req)
		time.Sleep(4 * time.Second)
		s.connect()
		s.dials[0].emit(events.PathUpdate{Kind: events.PathDirect})
		require.Same(s.t, s.conn, s.apps[0].conn)
		s.serve()
		time.Sleep(time.Hour)
		s.say("build=3:stop/running", "build=3:stop/succeeded")
		synctest.Wait()
		s.in(WaitToStart)
		require.Equal(s.t, []string{"detach"}, s.app.history())
		time.Sleep(100 * time.Hour) // without bound
		s.say("build=4:start/succeeded", "agent=b@4:ready")
		s.connect()
		require.Equal(s.t, []string{"detach", "attach"}, s.app.history())
		require.NoError(s.t, s.tun.Shutdown(s.t.Context()))
		require.Equal(s.t, []string{"detach", "attach", "shutdown"}, s.app.history())

		var got []string
		for _, tr := range s.seen {
			got = append(got, tr.Time.Sub(s.began).String()+" "+tr.From.String()+" "+tr.Trigger.String()+" "+tr.Outcome.String()+" "+tr.To.String())
		}
		require.Equal(s.t, []string{
			"0s init watchUp ignored init",
			"0s init stopSucceeded moved waitForWorkspaceStarted",
			"0s waitForWorkspaceStarted log stayed waitForWorkspaceStarted",
			"1s waitForWorkspaceStarted startAccepted ignored waitForWorkspaceStarted",
			"1s waitForWorkspaceStarted startActive ignored waitForWorkspaceStarted",
			"1s waitForWorkspaceStarted startActive replayed waitForWorkspaceStarted",
			"1s waitForWorkspaceStarted stopSucceeded stale waitForWorkspaceStarted",
			"3s waitForWorkspaceStarted startSucceeded moved waitForAgent",
			"3s waitForAgent agentStarting ignored waitForAgent",
			"6s waitForAgent agentReady moved establishTailnet",
			"10s establishTailnet tailnetUp moved tailnetUp",
			"10s tailnetUp pathChanged stayed tailnetUp",
			"10s tailnetUp appUp moved applicationUp",
			"1h0m10s applicationUp stopActive stayed applicationUp",
			"1h0m10s applicationUp stopSucceeded moved shutdownTailnet",
			"1h0m10s shutdownTailnet tailnetDown moved waitToStart",
			"101h0m10s waitToStart startSucceeded moved waitForAgent",
			"101h0m10s waitForAgent agentReady moved establishTailnet",
			"101h0m10s establishTailnet tailnetUp moved applicationUp",
			"101h0m10s applicationUp shutdown moved shutdownApplication",
			"101h0m10s shutdownApplication appDown moved shutdownTailnet",
			"101h0m10s shutdownTailnet tailnetDown moved exit",
		}, got)
		require.Equal(s.t, events.PathUpdate{Kind: events.PathDirect}, s.seen[11].Event)
		require.Equal(s.t, 1, s.seen[10].Attempt)
		for o, n := range map[Outcome]uint64{Moved: 13, Stayed: 3, Ignored: 4, Unexpected: 0, Stale: 1, Replayed: 1} {
			require.Equal(s.t, n, s.tun.Count(o), o)
		}
	})
}

func TestObserversSeeInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, Config{})
		var order []int
		s.tun.Observe(func(Transition) { order = append(order, 1) })
		s.tun.Observe(func(Transition) { order = append(order, 2) })
		s.run()
		s.say("watch=up")
		require.Equal(t, []int{1, 2}, order)
		s.tun.Abort()
		require.True(t, errors.Is(s.ended(), ErrAborted))
	})
}
