package fsm

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
)

// TestEveryBuildUpdateHasATrigger: what a build's transition and status amount
// to, all of them, and those that this version does not know.
func TestEveryBuildUpdateHasATrigger(t *testing.T) {
	want := map[events.Transition]map[Trigger][]events.JobStatus{
		events.TransitionStart: {
			TriggerStartActive:    {events.JobUnknown, events.JobPending, events.JobRunning, events.JobCanceling},
			TriggerStartSucceeded: {events.JobSucceeded},
			TriggerBuildFailed:    {events.JobCanceled, events.JobFailed},
		},
		events.TransitionStop: {
			TriggerStopActive:    {events.JobUnknown, events.JobPending, events.JobRunning, events.JobCanceling},
			TriggerStopSucceeded: {events.JobSucceeded},
			TriggerBuildFailed:   {events.JobCanceled, events.JobFailed},
		},
		events.TransitionUnknown: {
			TriggerStopActive:  {events.JobUnknown, events.JobPending, events.JobRunning, events.JobCanceling, events.JobSucceeded},
			TriggerBuildFailed: {events.JobCanceled, events.JobFailed},
		},
		events.TransitionDelete: {
			TriggerDeleted:     {events.JobUnknown, events.JobPending, events.JobRunning, events.JobCanceling, events.JobSucceeded},
			TriggerBuildFailed: {events.JobCanceled, events.JobFailed},
		},
	}
	for transition, triggers := range want {
		n := 0
		for trigger, statuses := range triggers {
			for _, status := range statuses {
				n++
				got, outcome := classify(&model{}, events.BuildUpdate{Number: 1, Transition: transition, Status: status})
				require.Equal(t, trigger.String(), got.String(), "%s %s", transition, status)
				require.Equal(t, Moved, outcome)
			}
		}
		require.Equal(t, int(events.JobFailed)+1, n, "a status of %s is not told of", transition)
	}
}

// TestEveryAgentUpdateHasATrigger: an agent that is not heard is gone or not yet
// there, whatever it last said.
func TestEveryAgentUpdateHasATrigger(t *testing.T) {
	said := []Trigger{
		events.LifecycleUnknown:         TriggerAgentCreated,
		events.LifecycleCreated:         TriggerAgentCreated,
		events.LifecycleStarting:        TriggerAgentStarting,
		events.LifecycleStartTimeout:    TriggerAgentBadStart,
		events.LifecycleStartError:      TriggerAgentBadStart,
		events.LifecycleReady:           TriggerAgentReady,
		events.LifecycleShuttingDown:    TriggerAgentGone,
		events.LifecycleShutdownTimeout: TriggerAgentGone,
		events.LifecycleShutdownError:   TriggerAgentGone,
		events.LifecycleOff:             TriggerAgentGone,
	}
	for lifecycle, heard := range said {
		for status, want := range map[events.AgentStatus]Trigger{
			events.AgentUnknown: TriggerAgentCreated, events.AgentConnecting: TriggerAgentCreated, events.AgentConnected: heard,
			events.AgentDisconnected: TriggerAgentGone, events.AgentTimeout: TriggerAgentGone,
		} {
			a := events.AgentUpdate{ID: "a", Lifecycle: events.Lifecycle(lifecycle), Status: status}
			got, _ := classify(&model{}, a)
			require.Equal(t, want.String(), got.String(), "%s, %s", a.Lifecycle, status)
		}
	}
}

// TestOldNews: what is known, and what is older.
func TestOldNews(t *testing.T) {
	for _, c := range []struct {
		says, model, event string
		want               Outcome
	}{
		{"the first build is news, whatever its number", "", "build=0:stop/succeeded", Moved},
		{"a newer build is", "build=1:start/succeeded", "build=2:stop/pending", Moved},
		{"a build that gets on is", "build=1:start/pending", "build=1:start/running", Moved},
		{"the same once more is not", "build=1:start/pending", "build=1:start/pending", Replayed},
		{"an older build is stale", "build=2:start/pending", "build=1:start/succeeded", Stale},
		{"a build that was over cannot fail later", "build=1:start/succeeded", "build=1:start/failed", Stale},
		{"nor run again", "build=1:start/failed", "build=1:start/running", Stale},
		{"an agent of this build is news", "build=1:start/succeeded", "agent=a@1:ready", Moved},
		{"an agent of a build to come is", "build=1:start/succeeded", "agent=a@2:ready", Moved},
		{"the same once more is not", "build=1:start/succeeded agent=a@1:ready", "agent=a@1:ready", Replayed},
		{"an agent of an older build is stale", "build=2:start/succeeded", "agent=a@1:ready", Stale},
		{"so is one that is older than an agent that came early", "build=1:start/succeeded agent=b@2:starting", "agent=a@1:ready", Stale},
	} {
		m := readModel(t, c.model)
		_, got := classify(&m, readEvent(t, c.event))
		require.Equal(t, c.want.String(), got.String(), c.says)
	}
	m := readModel(t, "build=1:start/running")
	_, got := classify(&m, events.BuildUpdate{Number: 1, Transition: events.TransitionStart, Status: events.JobRunning, Error: "retrying"})
	require.Equal(t, Moved, got, "a new word on the same build is news")
}

// TestTheEventsOfTheGoldenTable are what they are taken for.
func TestTheEventsOfTheGoldenTable(t *testing.T) {
	for trigger, list := range eventsOf {
		require.NotEmpty(t, list)
		for _, text := range list {
			ev := readEvent(t, text)
			require.Equal(t, text, showEvent(ev))
			got, _ := classify(&model{}, ev)
			require.Equal(t, Trigger(trigger).String(), got.String(), text)
		}
	}
}

// TestARefusalIsNotOvertaken: only an answer that names a build can be.
func TestARefusalIsNotOvertaken(t *testing.T) {
	m := readModel(t, "build=2:stop/succeeded")
	for want, ev := range map[bool]events.StartResult{
		true:  {Build: 2},
		false: {Build: 2, Err: errRefused},
	} {
		require.Equal(t, want, overtaken.holds(&situation{model: &m, ev: ev}))
	}
}
