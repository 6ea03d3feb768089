package fsm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
)

// TestEveryEndHasItsSentence: how each end comes about, what a person reads,
// and what a program can tell from it.
func TestEveryEndHasItsSentence(t *testing.T) {
	for _, c := range []struct {
		says   string
		is     *Error
		cause  error // that errors.Is finds as well; nil for none
		cfg    Config
		in     State // where it arises
		happen func(*stage)
	}{
		{"the workspace was deleted", ErrDeleted, nil, Config{}, WaitForAgent,
			func(s *stage) { s.say("build=2:delete/pending") }},
		{"the workspace is stopped", ErrStopped, nil, Config{}, ApplicationUp,
			func(s *stage) { s.say("build=2:stop/pending") }},
		{"the workspace's build failed: start build 2 failed: disk full", ErrBuildFailed, nil, Config{}, WaitForAgent,
			func(s *stage) {
				s.emit(events.BuildUpdate{Number: 2, Transition: events.TransitionStart, Status: events.JobFailed, Error: "disk full"})
			}},
		{"the workspace's build failed: start build 2 was cancelled", ErrBuildFailed, nil, Config{}, WaitForAgent,
			func(s *stage) { s.say("build=2:start/canceled") }},
		{"the workspace could not be started: refused", ErrStartRefused, errRefused, Config{}, WaitForWorkspaceStarted,
			func(s *stage) { s.starts[0].answer(events.StartResult{Err: errRefused}, nil) }},
		{"the workspace's agent could not be reached: wrong key", ErrDial, errDialForGood, Config{}, EstablishTailnet,
			func(s *stage) { s.dials[0].answer(nil, errDialForGood) }},
		{"the workspace's agent could not be reached: no answer before the dial was given up", ErrDial, errUnanswered, Config{MaxAttempts: 1}, EstablishTailnet,
			func(s *stage) { time.Sleep(time.Minute) }},
		{"the connection to the workspace was lost: wrong key", ErrLost, errDialForGood, Config{}, ApplicationUp,
			func(s *stage) { s.conn.die(errDialForGood) }},
		{"the application could not be started: port taken", ErrApp, errApp, Config{}, TailnetUp,
			func(s *stage) { s.apps[0].answer(nil, errApp) }},
		{"the application ended: port taken", ErrApp, errApp, Config{}, ApplicationUp,
			func(s *stage) { s.app.die(errApp) }},
		{"the application ended", ErrApp, nil, Config{}, ApplicationUp,
			func(s *stage) { s.app.die(nil) }},
		{"the coordinator ended the watch on the workspace: no such workspace", ErrWatch, errWatching, Config{}, Init,
			func(s *stage) { s.endWatch <- errWatching }},
		{"timed out waiting for the first word from the coordinator", ErrTimeout, nil, Config{}, Init,
			func(s *stage) { time.Sleep(time.Hour) }},
		{"timed out waiting for the workspace to stop", ErrTimeout, nil, Config{}, WaitToStart,
			func(s *stage) { time.Sleep(time.Hour) }},
		{"timed out waiting for the workspace to start", ErrTimeout, nil, Config{}, WaitForWorkspaceStarted,
			func(s *stage) { time.Sleep(time.Hour) }},
		{"timed out waiting for the workspace's agent", ErrTimeout, nil, Config{}, WaitForAgent,
			func(s *stage) { time.Sleep(time.Hour) }},
		{"timed out waiting for the workspace's agent: no route", ErrTimeout, errDial, Config{Timeout: time.Minute}, WaitForAgent,
			func(s *stage) {
				s.say("agent=a@1:ready")
				s.dials[0].answer(nil, errDial)
				s.say("agent=a@1:ready/disconnected")
				time.Sleep(time.Hour)
			}},
		{"timed out connecting to the workspace's agent", ErrTimeout, nil, Config{Timeout: time.Second}, EstablishTailnet,
			func(s *stage) { time.Sleep(time.Hour) }},
		{"timed out starting the application", ErrTimeout, nil, Config{}, TailnetUp,
			func(s *stage) { time.Sleep(time.Hour) }},
		{"aborted", ErrAborted, nil, Config{}, ApplicationUp,
			func(s *stage) { s.tun.Abort() }},
		{"aborted: owner left", ErrAborted, errOwner, Config{}, ApplicationUp,
			func(s *stage) { s.cancel(errOwner) }},
		{"aborted: context canceled", ErrAborted, context.Canceled, Config{}, ApplicationUp,
			func(s *stage) { s.cancel(nil) }},
		{"the workspace was replaced by a newer one", ErrReplaced, nil, Config{}, ApplicationUp,
			func(s *stage) { s.say("build=2:start/succeeded") }},
		{"the workspace's startup script failed", ErrScript, nil, Config{StrictScripts: true}, WaitForAgent,
			func(s *stage) { s.say("agent=a@1:start_timeout") }},
	} {
		t.Run(c.says, func(t *testing.T) {
			bubble(t, c.cfg, func(s *stage) {
				reach[c.in](s)
				c.happen(s)
				err := <-s.result
				require.EqualError(s.t, err, c.says)
				require.ErrorIs(s.t, err, c.is)
				require.NotErrorIs(s.t, err, &Error{Reason: ReasonScript + 1})
				var e *Error
				require.ErrorAs(s.t, err, &e)
				require.Equal(s.t, c.is.Reason, e.Reason)
				require.Equal(s.t, c.in.String(), e.State.String())
				if c.cause != nil {
					require.ErrorIs(s.t, err, c.cause)
				}
				if c.is == ErrBuildFailed {
					var b *BuildError
					require.ErrorAs(s.t, err, &b)
					require.Equal(s.t, int64(2), b.Number)
				}
			})
		})
	}
}

// TestTheDetailIsThatOfTheReason: the event that makes a tunnel look at its
// snapshot may bring an error about something else.
func TestTheDetailIsThatOfTheReason(t *testing.T) {
	t.Run("a failed build, found when a connection is lost", func(t *testing.T) {
		bubble(t, Config{OnStop: OnStopWait}, func(s *stage) {
			reach[ApplicationUp](s)
			s.say("build=2:stop/failed")
			s.conn.die(errDial)
			err := <-s.result
			var b *BuildError
			require.ErrorAs(s.t, err, &b)
			require.EqualError(s.t, err, "the workspace's build failed: stop build 2 failed")
			require.NotErrorIs(s.t, err, errDial)
		})
	})
	t.Run("a dial's error is not a later build's", func(t *testing.T) {
		bubble(t, Config{}, func(s *stage) {
			reach[EstablishTailnet](s)
			s.dials[0].answer(nil, errDial)
			s.say("build=2:start/running")
			time.Sleep(time.Hour)
			require.EqualError(s.t, <-s.result, "timed out waiting for the workspace to start")
		})
	})
	t.Run("a dial that was cancelled did not fail", func(t *testing.T) {
		bubble(t, Config{}, func(s *stage) {
			reach[EstablishTailnet](s)
			s.say("agent=b@1:starting")
			s.in(WaitForAgent)
			time.Sleep(time.Hour)
			require.EqualError(s.t, <-s.result, "timed out waiting for the workspace's agent")
		})
	})
}

func TestReasonsDoNotMatchEachOther(t *testing.T) {
	all := []*Error{ErrDeleted, ErrStopped, ErrBuildFailed, ErrStartRefused, ErrDial, ErrLost, ErrApp, ErrWatch,
		ErrTimeout, ErrAborted, ErrReplaced, ErrScript}
	require.Len(t, all, int(ReasonScript), "a reason has no variable for errors.Is")
	for i, a := range all {
		wrapped := fmt.Errorf("tunnel: %w", &Error{Reason: a.Reason, State: WaitForAgent, Err: errDial})
		for j, b := range all {
			require.Equal(t, i == j, errors.Is(wrapped, b), "%s, %s", a.Reason, b.Reason)
		}
		require.ErrorIs(t, wrapped, errDial)
		require.NotErrorIs(t, wrapped, &Error{Reason: a.Reason, Err: errApp}, "only the variables match by reason")
	}
	require.EqualError(t, &Error{}, "shut down")
	require.EqualError(t, &Error{Reason: ReasonTimeout, State: ShutdownTailnet}, "timed out shutting down")
	require.EqualError(t, &BuildError{Number: 7, Transition: events.TransitionStop, Canceled: true, Message: "by alice"},
		"stop build 7 was cancelled: by alice")
}

func TestBadConfigurations(t *testing.T) {
	for says, cfg := range map[string]Config{
		"bad tunneler configuration: unknown OnStop 3":                                      {OnStop: 3},
		"bad tunneler configuration: MaxAttempts is negative":                               {MaxAttempts: -1},
		"bad tunneler configuration: Timeout is negative":                                   {Timeout: -1},
		"bad tunneler configuration: NoWaitForScripts and StrictScripts exclude each other": {NoWaitForScripts: true, StrictScripts: true},
		"bad tunneler configuration: StableAfter is negative":                               {StableAfter: -1},
		"bad tunneler configuration: Backoff.Initial or Backoff.Max is negative":            {Backoff: Backoff{Initial: -1}},
		"bad tunneler configuration: Backoff.Jitter is not between 0 and 1":                 {Backoff: Backoff{Jitter: math.NaN()}},
		"bad tunneler configuration: state applicationUp has no deadline":                   {Deadlines: map[State]time.Duration{ApplicationUp: time.Hour}},
		"bad tunneler configuration: state exit has no deadline":                            {Deadlines: map[State]time.Duration{Exit: time.Hour}},
		"bad tunneler configuration: state shutdown has no deadline":                        {Deadlines: map[State]time.Duration{Shutdown: time.Hour}},
	} {
		t.Run(says, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tun := New(&fake{}, cfg)
				err := tun.Run(t.Context())
				require.ErrorIs(t, err, ErrConfig)
				require.EqualError(t, err, says)
				<-tun.Done()
				require.Equal(t, err, tun.Err(), "whoever waits for the end learns of it")
				require.NoError(t, tun.Shutdown(t.Context()))
				require.ErrorIs(t, tun.Run(t.Context()), ErrReused)
			})
		})
	}
}

func TestGoodConfigurations(t *testing.T) {
	require.NoError(t, (&Config{}).check())
	full := Config{
		NoAutostart: true, StrictScripts: true, OnStop: OnStopRestart, MaxAttempts: 1, StableAfter: 1, Timeout: 1,
		Backoff: Backoff{Initial: 1, Max: 1, Jitter: 1}, Deadlines: DefaultDeadlines(),
	}
	require.NoError(t, full.check())
	require.Equal(t, &rules{noAutostart: true, strictScripts: true, onStop: OnStopRestart, maxAttempts: 1, stableAfter: 1}, full.rules())
	require.Equal(t, &rules{noWaitForScripts: true, stableAfter: 10 * time.Second}, func() *rules {
		c := Config{NoWaitForScripts: true}.withDefaults()
		return c.rules()
	}())
	d := DefaultDeadlines()
	d[Init] = 0
	require.Equal(t, time.Minute, DefaultDeadlines()[Init], "a caller's map is its own")
	require.Len(t, d, numStates-2, "all states but applicationUp and exit are bounded")
}

func TestParseOnStop(t *testing.T) {
	for _, o := range []OnStop{OnStopExit, OnStopWait, OnStopRestart} {
		got, err := ParseOnStop(o.String())
		require.NoError(t, err)
		require.Equal(t, o, got)
	}
	_, err := ParseOnStop("Exit")
	require.EqualError(t, err, `unknown choice "Exit": expected exit, wait or restart`)
}

// TestNamesAreText: states, triggers and outcomes go into JSON by name.
func TestNamesAreText(t *testing.T) {
	for want, m := range map[string]interface{ MarshalText() ([]byte, error) }{
		"waitForAgent": WaitForAgent, "agentReady": TriggerAgentReady, "replayed": Replayed,
	} {
		text, err := m.MarshalText()
		require.NoError(t, err)
		require.Equal(t, want, string(text))
	}
}
