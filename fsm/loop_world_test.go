package fsm

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/tunneler/tunneler/events"
)

// A world that does not do what it should, or not when it should.

func TestAConnectionThatComesAfterItsCancellationIsClosed(t *testing.T) {
	for how, end := range map[string]func(*stage){
		"after a shutdown": func(s *stage) { go func() { _ = s.tun.Shutdown(s.t.Context()) }() },
		"after an abort":   func(s *stage) { s.tun.Abort() },
		"after a deletion": func(s *stage) { s.say("build=2:delete/running") },
	} {
		t.Run(how, func(t *testing.T) {
			bubble(t, Config{}, func(s *stage) {
				s.deaf = true
				reach[EstablishTailnet](s)
				end(s)
				synctest.Wait()
				require.Error(s.t, s.dials[0].ctx.Err(), "the dial is cancelled")
				s.connect()
				<-s.result
				require.Equal(s.t, []string{"close"}, s.conn.history())
				require.Empty(s.t, s.apps)
			})
		})
	}
}

func TestAnApplicationThatComesAfterItsCancellationIsClosed(t *testing.T) {
	for how, c := range map[string]struct {
		end   func(*stage)
		close string
	}{
		"after a shutdown": {func(s *stage) { go func() { _ = s.tun.Shutdown(s.t.Context()) }() }, "shutdown"},
		"after an abort":   {func(s *stage) { s.tun.Abort() }, "close"},
		"after a stop":     {func(s *stage) { s.say("build=2:stop/running") }, "shutdown"},
	} {
		t.Run(how, func(t *testing.T) {
			bubble(t, Config{}, func(s *stage) {
				s.deaf = true
				reach[TailnetUp](s)
				c.end(s)
				synctest.Wait()
				require.Error(s.t, s.apps[0].ctx.Err(), "the start is cancelled")
				s.serve()
				<-s.result
				require.Equal(s.t, []string{c.close}, s.app.history())
				require.Equal(s.t, []string{"close"}, s.conn.history())
			})
		})
	}
}

// TestAnApplicationStartThatIgnoresItsContext holds up the end for as long as
// the deadline allows, and is closed when it comes.
func TestAnApplicationStartThatIgnoresItsContext(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		s.deaf = true
		reach[TailnetUp](s)
		go func() { _ = s.tun.Shutdown(s.t.Context()) }()
		synctest.Wait()
		s.exactly(15*time.Second, ShutdownApplication, Exit)
		require.True(s.t, s.conn.ended(), "its connection does not wait for it")
		select {
		case <-s.tun.Done():
			require.Fail(s.t, "done while the start is still at it")
		default:
		}
		s.serve()
		require.NoError(s.t, <-s.result)
		require.Equal(s.t, []string{"close"}, s.app.history())
	})
}

// TestAnApplicationIsKeptWhenItsStartWasCancelledForNothing: the tailnet was
// lost, the start worked all the same, and the next tailnet is attached to it.
func TestAnApplicationIsKeptWhenItsStartWasCancelledForNothing(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		s.deaf = true
		reach[TailnetUp](s)
		s.conn.die(errDial)
		synctest.Wait()
		s.in(ShutdownApplication)
		s.serve()
		s.in(WaitForAgent)
		time.Sleep(time.Second)
		synctest.Wait()
		s.connect()
		s.in(ApplicationUp)
		require.Equal(s.t, []string{"detach", "attach"}, s.app.history())
		require.Len(s.t, s.apps, 1)
		require.NoError(s.t, s.tun.Shutdown(s.t.Context()))
	})
}

func TestAHardAbortClosesWhatDoesNotCloseInOrder(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		reach[ShutdownApplication](s)
		s.tun.Abort()
		<-s.result
		require.ElementsMatch(s.t, []string{"shutdown", "close"}, s.app.history())
		require.Equal(s.t, []string{"close"}, s.conn.history())
	})
}

// TestRunWaitsForWhatDoesNotEnd: what was asked to close may take its time;
// Run does not return before it is over.
func TestRunWaitsForWhatDoesNotEnd(t *testing.T) {
	for what, abort := range map[string]func(*stage) *thing{
		"a connection": func(s *stage) *thing {
			reach[ApplicationUp](s)
			s.conn.stuck = true
			s.tun.Abort()
			return s.conn
		},
		"a connection that comes late": func(s *stage) *thing {
			s.deaf = true
			reach[EstablishTailnet](s)
			s.tun.Abort()
			synctest.Wait()
			s.conn = newThing()
			s.conn.stuck = true
			s.dials[0].answer(s.conn, nil)
			return s.conn
		},
		"an application that comes late": func(s *stage) *thing {
			s.deaf = true
			reach[TailnetUp](s)
			s.tun.Abort()
			synctest.Wait()
			s.app = newThing()
			s.app.stuck = true
			s.apps[0].answer(s.app, nil)
			return s.app
		},
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, Config{}, func(s *stage) {
				x := abort(s)
				time.Sleep(time.Hour)
				synctest.Wait()
				require.Equal(s.t, []string{"close"}, x.history())
				select {
				case <-s.tun.Done():
					require.Fail(s.t, "done, and it is still there")
				default:
				}
				x.die(nil)
				require.ErrorIs(s.t, <-s.result, ErrAborted)
			})
		})
	}
}

// TestAConnectionThatDiesAtOnceHasLived, unlike a dial that failed.
func TestAConnectionThatDiesAtOnceHasLived(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		reach[ApplicationUp](s)
		s.conn.die(errDial)
		synctest.Wait()
		require.Equal(s.t, events.TailnetUpdate{Err: errDial, Lived: 1}, s.seen[len(s.seen)-1].Event)
		s.tun.Abort()
	})
}

func TestAStartThatIsInFlightIsCancelled(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		reach[WaitForWorkspaceStarted](s)
		require.NoError(s.t, s.tun.Shutdown(s.t.Context()))
		require.Error(s.t, s.starts[0].ctx.Err())
	})
}

func TestNothingAndNoErrorIsAnError(t *testing.T) {
	t.Run("from a dial, which is tried again", func(t *testing.T) {
		bubble(t, Config{MaxAttempts: 2}, func(s *stage) {
			reach[EstablishTailnet](s)
			s.dials[0].answer(nil, nil)
			s.in(WaitForAgent)
			time.Sleep(time.Second)
			synctest.Wait()
			s.dials[1].answer(nil, nil)
			err := <-s.result
			require.ErrorIs(s.t, err, ErrDial)
			require.ErrorIs(s.t, err, errNothing)
		})
	})
	t.Run("from an application start, which ends it", func(t *testing.T) {
		bubble(t, Config{}, func(s *stage) {
			reach[TailnetUp](s)
			s.apps[0].answer(nil, nil)
			err := <-s.result
			require.ErrorIs(s.t, err, ErrApp)
			require.ErrorIs(s.t, err, errNothing)
		})
	})
}

func TestAWatchThatEnds(t *testing.T) {
	t.Run("with an error ends what waits for it", func(t *testing.T) {
		bubble(t, Config{}, func(s *stage) {
			reach[WaitForAgent](s)
			s.endWatch <- errWatching
			err := <-s.result
			require.ErrorIs(s.t, err, ErrWatch)
			require.ErrorIs(s.t, err, errWatching)
		})
	})
	t.Run("without one is as bad", func(t *testing.T) {
		bubble(t, Config{}, func(s *stage) {
			s.endWatch <- nil
			require.ErrorIs(s.t, <-s.result, errWatchEnded)
		})
	})
	t.Run("under a tunnel that is up is of no matter until that is lost", func(t *testing.T) {
		bubble(t, Config{}, func(s *stage) {
			reach[ApplicationUp](s)
			s.endWatch <- errWatching
			time.Sleep(time.Hour)
			synctest.Wait()
			s.in(ApplicationUp)
			s.conn.die(errDial)
			err := <-s.result
			require.ErrorIs(s.t, err, ErrWatch)
			require.ErrorIs(s.t, err, errWatching, "the watch's own error, not the connection's")
			require.Equal(s.t, []string{"shutdown"}, s.app.history())
		})
	})
}

func TestWhatDiesByItself(t *testing.T) {
	t.Run("an application ends the tunnel with its error", func(t *testing.T) {
		bubble(t, Config{}, func(s *stage) {
			reach[ApplicationUp](s)
			s.app.die(errApp)
			err := <-s.result
			require.ErrorIs(s.t, err, ErrApp)
			require.ErrorIs(s.t, err, errApp)
			require.Equal(s.t, []string{"close"}, s.conn.history())
			require.Empty(s.t, s.app.history())
		})
	})
	t.Run("a connection is replaced, and not closed by us", func(t *testing.T) {
		bubble(t, Config{}, func(s *stage) {
			reach[ApplicationUp](s)
			first := s.conn
			first.die(errDial)
			synctest.Wait()
			time.Sleep(time.Second)
			synctest.Wait()
			s.connect()
			s.in(ApplicationUp)
			require.Empty(s.t, first.history())
			require.Equal(s.t, []string{"detach", "attach"}, s.app.history())
			s.tun.Abort()
		})
	})
	t.Run("a connection that must not be dialled again ends the tunnel", func(t *testing.T) {
		bubble(t, Config{}, func(s *stage) {
			reach[ApplicationUp](s)
			s.conn.die(errDialForGood)
			err := <-s.result
			require.ErrorIs(s.t, err, ErrLost)
			require.ErrorIs(s.t, err, errDialForGood)
		})
	})
	t.Run("both at once", func(t *testing.T) {
		bubble(t, Config{}, func(s *stage) {
			reach[ApplicationUp](s)
			s.conn.die(errDial)
			s.app.die(errApp)
			require.ErrorIs(s.t, <-s.result, ErrApp)
		})
	})
}

// TestAnUnexpectedEventIsLoggedCountedAndClosed: the one thing that a world
// which breaks its promises gets.
func TestAnUnexpectedEventIsLoggedCountedAndClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		s := newStage(t, Config{Logger: zap.New(core)})
		s.run()
		reach[ApplicationUp](s)
		stray := newThing()
		s.emit(events.TailnetUpdate{Up: true, Conn: stray})
		synctest.Wait()
		s.in(ApplicationUp)
		require.Equal(t, []string{"close"}, stray.history())
		require.Equal(t, uint64(1), s.tun.Count(Unexpected))
		require.Empty(t, s.conn.history(), "ours is not touched")
		entries := logs.FilterLevelExact(zapcore.ErrorLevel).All()
		require.Len(t, entries, 1)
		require.Equal(t, map[string]any{"state": "applicationUp", "trigger": "tailnetUp"}, entries[0].ContextMap())
		require.NoError(t, s.tun.Shutdown(t.Context()))
		require.Equal(t, []string{"close"}, s.conn.history(), "and we still know which is ours")
		require.Equal(t, []string{"close"}, stray.history())
		require.True(t, s.app.ended())
		require.Zero(t, s.since())
	})
}

// TestAQuietLog: a whole life without trouble writes nothing that an operator
// would have to read.
func TestAQuietLog(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	bubble(t, Config{Logger: zap.New(core)}, func(s *stage) {
		s.say("build=1:stop/succeeded", "buildLog")
		s.starts[0].answer(events.StartResult{Build: 2}, nil)
		s.say("build=2:start/running", "build=2:start/succeeded", "agent=a@2:ready", "agentLog")
		s.connect()
		s.serve()
		require.NoError(s.t, s.tun.Shutdown(s.t.Context()))
	})
	require.Empty(t, logs.All())
}

func TestAFailureToCloseIsNoMoreThanADetail(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	bubble(t, Config{Logger: zap.New(core)}, func(s *stage) {
		reach[ShutdownApplication](s)
		s.tun.Abort()
		require.True(s.t, errors.Is(<-s.result, ErrDeleted))
	})
	require.Equal(t, 1, logs.FilterMessage("closing failed").FilterLevelExact(zapcore.DebugLevel).Len())
}
