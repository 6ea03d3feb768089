package fsm

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/tunneler/tunneler/events"
)

// The published ancestor was run through all combinations of its states, events
// and flags. Each test here is named after a defect that was found in it, and
// shows that it is absent.

func TestAWatchDialFailureLeftTheLoopInInitForEver(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		s.endWatch <- errWatching
		require.ErrorIs(s.t, <-s.result, ErrWatch)
		require.Zero(s.t, s.since())
	})
}

func TestAFailedStartWorkspaceWasReportedAsAnApplicationEventAndIgnored(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		reach[WaitForWorkspaceStarted](s)
		s.starts[0].answer(events.StartResult{Err: errRefused}, nil)
		require.ErrorIs(s.t, <-s.result, ErrStartRefused)
		require.Zero(s.t, s.since())
	})
}

func TestAStopInWaitForWorkspaceStartedWasIgnored(t *testing.T) {
	lead(t, "", then(builds, []line{{"build=3:stop/succeeded", WaitForWorkspaceStarted, "startWorkspace"}}))
	lead(t, "noAutostart", then(builds, []line{{"build=3:stop/succeeded", Exit, ""}}))
}

func TestStartErrorAndStartTimeoutWaitedForEver(t *testing.T) {
	for _, bad := range []string{"agent=a@2:start_error", "agent=a@2:start_timeout"} {
		lead(t, "", then(waits, []line{{bad, EstablishTailnet, "dial"}}, tailnet, works))
		lead(t, "strict", then(waits, []line{{bad, Exit, ""}}))
	}
}

func TestAnAgentReadyBeforeItsBuildSucceededWasLost(t *testing.T) {
	lead(t, "", then(builds, []line{{"agent=a@2:ready", WaitForWorkspaceStarted, ""}, {"build=2:start/succeeded", EstablishTailnet, "dial"}}))
}

func TestADialHadNoDeadline(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		reach[EstablishTailnet](s)
		s.exactly(30*time.Second, EstablishTailnet, WaitForAgent)
		require.Error(s.t, s.dials[0].ctx.Err())
		s.tun.Abort()
	})
}

func TestALostTailnetWasUnexpectedAndTheTunnelStayedUp(t *testing.T) {
	lead(t, "", then(comesUp, []line{{"tailnet=down,err=dial", WaitForAgent, "detach"}, {"retryDue", EstablishTailnet, "dial"}, {"tailnet=up", ApplicationUp, "attach"}}))
}

func TestAnApplicationCouldNotReportItsOwnDeath(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		reach[ApplicationUp](s)
		s.app.die(errApp)
		require.ErrorIs(s.t, <-s.result, errApp)
	})
}

func TestAReplacedAgentWasIgnored(t *testing.T) {
	lead(t, "onStop=wait", then(comesUp, []line{
		{"agent=b@2:ready", ShutdownTailnet, "detach closeConn"}, {"tailnet=down,lived=1ns", WaitForAgent, ""},
		{"retryDue", EstablishTailnet, "dial"}, {"tailnet=up", ApplicationUp, "attach"}}))
	m := lead(t, "", then(comesUp, []line{{"agent=b@2:ready", ShutdownApplication, "closeApp"}}, goesDown))
	require.Equal(t, ReasonReplaced, m.model.cause)
}

func TestARetryableWatchErrorToreDownAHealthyTunnel(t *testing.T) {
	lead(t, "", then(comesUp, []line{{"watch=retrying,err=watch", ApplicationUp, ""}, {"watch=lost,err=watch", ApplicationUp, ""}}))
}

func TestAnyRestartEndedTheTunnel(t *testing.T) {
	again := []line{{"build=4:start/succeeded", WaitForAgent, ""}, {"agent=b@4:ready", EstablishTailnet, "dial"}, {"tailnet=up", ApplicationUp, "attach"}}
	lead(t, "onStop=wait", then(comesUp, []line{
		{"build=3:stop/running", ApplicationUp, ""}, {"build=3:stop/succeeded", ShutdownTailnet, "detach closeConn"},
		{"tailnet=down,lived=1ns", WaitToStart, ""}}, again))
	lead(t, "onStop=restart", then(comesUp, []line{
		{"build=3:stop/succeeded", ShutdownTailnet, "detach closeConn"},
		{"tailnet=down,lived=1ns", WaitForWorkspaceStarted, "startWorkspace"}, {"accepted=4", WaitForWorkspaceStarted, ""}}, again))
}

func TestASecondStopSucceededStartedTheWorkspaceTwice(t *testing.T) {
	lead(t, "", []line{
		{"build=1:stop/succeeded", WaitForWorkspaceStarted, "startWorkspace"},
		{"build=1:stop/succeeded", WaitForWorkspaceStarted, ""},
		{"build=2:stop/succeeded", WaitForWorkspaceStarted, ""}})
}

func TestCancelingExitedAtOnce(t *testing.T) {
	lead(t, "", []line{{"build=1:start/canceling", WaitForWorkspaceStarted, ""}, {"build=1:start/canceled", Exit, ""}})
	lead(t, "", []line{{"build=1:stop/canceling", WaitToStart, ""}, {"build=1:stop/succeeded", WaitForWorkspaceStarted, "startWorkspace"}})
}

func TestAConnectionThatArrivedAfterCancellationLeaked(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		s.deaf = true
		reach[EstablishTailnet](s)
		s.tun.Abort()
		synctest.Wait()
		s.connect()
		require.Equal(s.t, []string{"close"}, s.conn.history())
	})
}

func TestAHardCancelClosedNeitherApplicationNorConnection(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		reach[ApplicationUp](s)
		s.cancel(nil)
		<-s.tun.Done()
		require.Equal(s.t, []string{"close"}, s.app.history())
		require.Equal(s.t, []string{"close"}, s.conn.history())
	})
}

func TestThereWasNoDoneErrOrState(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		reach[ApplicationUp](s)
		require.Equal(s.t, ApplicationUp, s.tun.State())
		s.say("build=2:stop/running")
		<-s.tun.Done()
		require.ErrorIs(s.t, s.tun.Err(), ErrStopped)
		require.Equal(s.t, Exit, s.tun.State())
	})
}

// TestFatalFromALibrary: an unexpected event is logged, and no source file of
// the package can end the process.
func TestFatalFromALibrary(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, Config{Logger: zap.New(core)})
		s.run()
		s.emit(events.AppUpdate{})
		require.NoError(t, s.tun.Shutdown(t.Context()))
	})
	require.Equal(t, 1, logs.Len())
	require.Equal(t, zapcore.ErrorLevel, logs.All()[0].Level)

	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range files {
		source, err := os.ReadFile(name)
		require.NoError(t, err)
		if !strings.HasSuffix(name, "_test.go") {
			require.NotRegexp(t, regexp.MustCompile(`os\.Exit|\.(Fatal|DPanic|Panic)f?\(|signal\.`), string(source), name)
		}
	}
}

func TestAGracefulShutdownWaitedForADialWithoutCancellingIt(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		reach[EstablishTailnet](s)
		require.NoError(s.t, s.tun.Shutdown(s.t.Context()))
		require.Error(s.t, s.dials[0].ctx.Err())
		require.Zero(s.t, s.since())
	})
}

// TestAnUpdateWithBuildAndAgentDroppedTheAgent: it is two events, in that order.
func TestAnUpdateWithBuildAndAgentDroppedTheAgent(t *testing.T) {
	lead(t, "", []line{{"build=2:start/succeeded", WaitForAgent, ""}, {"agent=a@2:ready", EstablishTailnet, "dial"}})
	lead(t, "onStop=wait", then(comesUp, []line{
		{"build=4:start/succeeded", ShutdownTailnet, "detach closeConn"}, {"agent=b@4:ready", ShutdownTailnet, ""},
		{"tailnet=down,lived=1µs", WaitForAgent, ""}, {"retryDue", EstablishTailnet, "dial"}}))
}

// TestLogLinesWithoutNewline: a line is one event, whole and with nothing added,
// so that whoever prints it knows where it ends.
func TestLogLinesWithoutNewline(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		for _, text := range []string{"one", "", "three"} {
			s.emit(events.BuildLog{Log: events.Log{Output: text}})
		}
		synctest.Wait()
		require.Len(s.t, s.seen, 3)
		for i, text := range []string{"one", "", "three"} {
			require.Equal(s.t, text, s.seen[i].Event.(events.BuildLog).Output)
		}
		s.tun.Abort()
	})
}

func TestLogsWereNeverDelivered(t *testing.T) {
	inEveryState(t, Config{}, func(s *stage, in State) {
		for _, ev := range []events.Event{events.BuildLog{Log: events.Log{ID: 1}}, events.AgentLog{Log: events.Log{ID: 2}}} {
			s.emit(ev)
			synctest.Wait()
			last := s.seen[len(s.seen)-1]
			require.Equal(s.t, ev, last.Event)
			require.Equal(s.t, Stayed, last.Outcome, "it is for people")
			s.in(in)
		}
		s.tun.Abort()
		if in == ShutdownTailnet {
			obliged(s, in)
		}
	})
}

func TestThereWasNoBuildNumberOnTheWire(t *testing.T) {
	for _, ev := range []any{events.BuildUpdate{Number: 7}, events.AgentUpdate{Build: 7}} {
		text, err := json.Marshal(ev)
		require.NoError(t, err)
		require.Contains(t, string(text), `"build_number":7`)
	}
	m := lead(t, "onStop=wait", then(comesUp, []line{{"build=1:delete/succeeded", ApplicationUp, ""}, {"agent=z@1:ready", ApplicationUp, ""}}))
	require.Equal(t, int64(2), m.model.build.Number, "what is older than what we know is not even remembered")
	require.Equal(t, "a", m.model.agent.ID)
}

// TestTheWatchHadNoIdleTimeout: the client has one; and no state that waits for
// the watch lasts for ever, even if the client had not.
func TestTheWatchHadNoIdleTimeout(t *testing.T) {
	for _, in := range []State{Init, WaitToStart, WaitForWorkspaceStarted, WaitForAgent} {
		bubble(t, Config{}, func(s *stage) {
			reach[in](s)
			s.say("watch=retrying,err=watch")
			s.exactly(DefaultDeadlines()[in], in, Exit)
		})
	}
}
