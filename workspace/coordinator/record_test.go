package coordinator

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/template"
)

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func stopped() record {
	return newRecord("ws_a", "demo", template.Template{Name: "demo"}, "ann", day)
}

// built is a record whose builds, in order, have ended as given.
func built(t testing.TB, steps ...any) record {
	r := stopped()
	for i := 0; i < len(steps); i += 2 {
		created, err := r.requestBuild(api.CreateBuild{Transition: steps[i].(events.Transition)}, "ann", "here", day)
		require.NoError(t, err)
		require.True(t, created)
		switch steps[i+1] {
		case events.JobRunning:
			r.beginBuild(r.Build.Number, day)
		case events.JobSucceeded:
			r.finishBuild(r.Build.Number, nil, day)
		case events.JobFailed:
			r.finishBuild(r.Build.Number, errors.New("boom"), day)
		}
	}
	return r
}

func TestWhatARequestForABuildGets(t *testing.T) {
	const start, stop, del = events.TransitionStart, events.TransitionStop, events.TransitionDelete
	for name, c := range map[string]struct {
		before  record
		ask     events.Transition
		created bool
		code    api.Code
	}{
		"a start of a workspace that was never built":  {stopped(), start, true, ""},
		"a stop of a workspace that was never built":   {stopped(), stop, false, ""},
		"a start of one that is started":               {built(t, start, events.JobSucceeded), start, false, ""},
		"a start of one whose start has failed":        {built(t, start, events.JobFailed), start, true, ""},
		"a stop of one whose start has failed":         {built(t, start, events.JobFailed), stop, true, ""},
		"a stop of one that is started":                {built(t, start, events.JobSucceeded), stop, true, ""},
		"a start while it starts":                      {built(t, start, events.JobRunning), start, false, api.CodeBuildActive},
		"a start while a start is pending":             {built(t, start, events.JobPending), start, false, api.CodeBuildActive},
		"a stop while it starts":                       {built(t, start, events.JobRunning), stop, false, api.CodeBuildActive},
		"a start while it stops":                       {built(t, start, events.JobSucceeded, stop, events.JobRunning), start, false, api.CodeBuildActive},
		"a start after a stop":                         {built(t, start, events.JobSucceeded, stop, events.JobSucceeded), start, true, ""},
		"a start after a stop that has failed":         {built(t, start, events.JobSucceeded, stop, events.JobFailed), start, true, ""},
		"a delete of a workspace that was never built": {stopped(), del, true, ""},
		"a delete while it starts":                     {built(t, start, events.JobRunning), del, false, api.CodeBuildActive},
		"a delete after a delete that has failed":      {built(t, del, events.JobFailed), del, true, ""},
		"a start of one that is deleted":               {built(t, del, events.JobSucceeded), start, false, api.CodeNotFound},
		"a delete of one that is deleted":              {built(t, del, events.JobSucceeded), del, false, api.CodeNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.before
			created, err := r.requestBuild(api.CreateBuild{Transition: c.ask}, "bob", "there", day)
			require.Equal(t, c.created, created)
			if c.code != "" {
				var e *api.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, c.code, e.Code)
				if c.code == api.CodeBuildActive {
					require.Equal(t, &c.before.Build.Build, e.Build)
				}
			} else {
				require.NoError(t, err)
			}
			if !created {
				require.Equal(t, c.before, r, "nothing has changed")
				return
			}
			require.Equal(t, c.before.Build.Number+1, r.Build.Number)
			require.Equal(t, events.JobPending, r.Build.Status)
			require.Equal(t, "bob", r.Build.Initiator)
		})
	}
}

func TestARepeatedRequestIsTheSameBuildWhateverHasBecomeOfIt(t *testing.T) {
	in := api.CreateBuild{Transition: events.TransitionStart, RequestID: "r1"}
	r := stopped()
	created, err := r.requestBuild(in, "ann", "here", day)
	require.NoError(t, err)
	require.True(t, created)
	for _, end := range []func(){func() {}, func() { r.beginBuild(1, day) }, func() { r.finishBuild(1, errors.New("x"), day) }} {
		end()
		created, err := r.requestBuild(in, "ann", "here", day)
		require.NoError(t, err)
		require.False(t, created)
		require.EqualValues(t, 1, r.Build.Number)
	}
	created, err = r.requestBuild(api.CreateBuild{Transition: events.TransitionStart, RequestID: "r2"}, "ann", "here", day)
	require.NoError(t, err)
	require.True(t, created)
}

func TestWhoseAgentsMaySpeak(t *testing.T) {
	const start, stop, del = events.TransitionStart, events.TransitionStop, events.TransitionDelete
	for name, c := range map[string]struct {
		r    record
		want int64
	}{
		"nobody's before the first build":                     {stopped(), 0},
		"a start's while it is pending":                       {built(t, start, events.JobPending), 1},
		"a start's while it runs":                             {built(t, start, events.JobRunning), 1},
		"a start's that has succeeded":                        {built(t, start, events.JobSucceeded), 1},
		"nobody's after a start that has failed":              {built(t, start, events.JobFailed), 0},
		"the start's while a stop runs":                       {built(t, start, events.JobSucceeded, stop, events.JobRunning), 1},
		"the start's after a stop that has failed":            {built(t, start, events.JobSucceeded, stop, events.JobFailed), 1},
		"nobody's while a start that has failed is undone":    {built(t, start, events.JobFailed, stop, events.JobRunning), 0},
		"nobody's after a stop":                               {built(t, start, events.JobSucceeded, stop, events.JobSucceeded), 0},
		"the next start's":                                    {built(t, start, events.JobSucceeded, stop, events.JobSucceeded, start, events.JobRunning), 3},
		"nobody's while a never started workspace is deleted": {built(t, del, events.JobRunning), 0},
		"nobody's of a deleted workspace":                     {built(t, start, events.JobSucceeded, del, events.JobSucceeded), 0},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, c.r.admits()) })
	}
}

func session1(build int64, id string) sessionRef {
	return sessionRef{Workspace: "ws_a", Build: build, Agent: agentName, Node: "here", ID: id}
}

func TestARestartedAgentIsAnotherAgent(t *testing.T) {
	r := built(t, events.TransitionStart, events.JobRunning)
	require.Nil(t, r.hello(session1(1, "s1"), "agent-1", "v1", day))
	require.True(t, r.report(session1(1, "s1"), events.AgentLifecycle{Lifecycle: events.LifecycleReady}, day))
	require.Equal(t, events.LifecycleReady, r.Agents[0].Lifecycle)

	require.Nil(t, r.hello(session1(1, "s2"), "agent-1", "v1", day), "the same process again")
	require.Equal(t, events.LifecycleReady, r.Agents[0].Lifecycle, "says nothing new of itself")

	require.Nil(t, r.hello(session1(1, "s3"), "agent-2", "v1", day))
	require.Equal(t, "agent-2", r.Agents[0].ID)
	require.Equal(t, events.LifecycleCreated, r.Agents[0].Lifecycle)
	require.Equal(t, []processRecord{{1, "agent-1"}, {1, "agent-2"}}, r.Processes)

	require.Equal(t, rejectReplaced, r.hello(session1(1, "s4"), "agent-1", "v1", day), "the first one has been replaced")
}

func TestOnlyTheChannelThatAnAgentHasNowSpeaksForIt(t *testing.T) {
	r := built(t, events.TransitionStart, events.JobRunning)
	require.Nil(t, r.hello(session1(1, "s1"), "agent-1", "v1", day))
	require.Nil(t, r.hello(session1(1, "s2"), "agent-1", "v1", day))
	require.False(t, r.report(session1(1, "s1"), events.AgentLifecycle{Lifecycle: events.LifecycleOff}, day))
	require.False(t, r.drop(session1(1, "s1"), day))
	require.Equal(t, events.AgentConnected, r.Agents[0].Status)
	require.True(t, r.drop(session1(1, "s2"), day))
	require.Equal(t, events.AgentDisconnected, r.Agents[0].Status)
	require.False(t, r.drop(session1(1, "s2"), day))
}

func TestAnAgentOfAnotherBuildIsTurnedAway(t *testing.T) {
	r := built(t, events.TransitionStart, events.JobSucceeded, events.TransitionStop, events.JobSucceeded, events.TransitionStart, events.JobRunning)
	require.Equal(t, rejectBuildOver, r.hello(session1(1, "s1"), "agent-1", "v1", day))
	require.Nil(t, r.hello(session1(3, "s1"), "agent-3", "v1", day))
	other := session1(3, "s2")
	other.Agent = "side"
	require.Equal(t, rejectBuildOver, r.hello(other, "agent-4", "v1", day))
}

func TestWhatBecomesOfAgentsThatAreWaitedFor(t *testing.T) {
	since := day.Add(time.Hour)
	t.Run("one that never came is in time-out", func(t *testing.T) {
		r := built(t, events.TransitionStart, events.JobRunning)
		require.True(t, r.finishBuild(1, nil, since))
		require.False(t, r.overdue(agentName, day, since), "the wait began when the build ended")
		require.True(t, r.overdue(agentName, since, since))
		require.Equal(t, events.AgentTimeout, r.Agents[0].Status)
	})
	t.Run("one that does not come back is disconnected", func(t *testing.T) {
		r := built(t, events.TransitionStart, events.JobRunning)
		require.Nil(t, r.hello(session1(1, "s1"), "agent-1", "v1", day))
		require.True(t, r.finishBuild(1, nil, day))
		require.False(t, r.overdue(agentName, time.Time{}, since), "it is there")
		none := func(string) bool { return false }
		all := func(string) bool { return true }
		require.False(t, r.lost("elsewhere", none))
		require.False(t, r.lost("here", all), "it has come back before it was missed")
		require.True(t, r.lost("here", none))
		r.orphan("here", all, since)
		require.Equal(t, events.AgentConnected, r.Agents[0].Status)
		r.orphan("here", none, since)
		require.Equal(t, events.AgentConnecting, r.Agents[0].Status)
		require.True(t, r.overdue(agentName, since, since))
		require.Equal(t, events.AgentDisconnected, r.Agents[0].Status)
	})
	t.Run("the agents of a start that fails are gone", func(t *testing.T) {
		r := built(t, events.TransitionStart, events.JobFailed)
		require.Equal(t, events.AgentTimeout, r.Agents[0].Status)
	})
}

func TestOnlyTheLastProcessesAreRemembered(t *testing.T) {
	r := built(t, events.TransitionStart, events.JobRunning)
	for i := range 100 {
		require.Nil(t, r.hello(session1(1, "s"), string(rune('a'+i%26))+string(rune('a'+i/26)), "", day))
	}
	require.Len(t, r.Processes, maxProcesses)
}

// The rules of builds hold whatever happens to a record.
func TestBuildsFollowTheirRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := stopped()
		transitions := []events.Transition{events.TransitionStart, events.TransitionStart, events.TransitionStop, events.TransitionDelete}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			before := r.Build
			gone := r.deleted()
			number := before.Number - rapid.Int64Range(0, 1).Draw(t, "late")
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0, 1:
				created, err := r.requestBuild(api.CreateBuild{Transition: rapid.SampledFrom(transitions).Draw(t, "transition")}, "ann", "here", day)
				if created != (r.Build.Number == before.Number+1) || created && (!before.Status.Final() || gone || err != nil) {
					t.Fatalf("created %v, error %v: %+v after %+v", created, err, r.Build, before)
				}
			case 2:
				r.beginBuild(number, day)
			case 3:
				r.finishBuild(number, nil, day)
			case 4:
				r.finishBuild(number, errors.New("boom"), day)
			case 5:
				if reject := r.hello(session1(number, "s"), rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "agent"), "", day); reject == nil && gone {
					t.Fatalf("an agent of a deleted workspace was let in")
				}
			case 6:
				r.drop(session1(number, "s"), day)
			}
			switch {
			case r.Build.Number < before.Number:
				t.Fatalf("build numbers go back: %+v after %+v", r.Build, before)
			case r.Build.Number == before.Number && before.Status.Final() && r.Build != before:
				t.Fatalf("a final build has changed: %+v after %+v", r.Build, before)
			case r.deleted() && !(r.Build.Transition == events.TransitionDelete && r.Build.Status == events.JobSucceeded):
				t.Fatalf("deleted without a delete build: %+v", r.Build)
			case r.admits() == 0 && len(r.Agents) > 0 && r.Agents[0].Status == events.AgentConnected:
				t.Fatalf("an agent that is not wanted is connected: %+v", r)
			}
			for _, a := range r.Agents {
				if (a.Status == events.AgentConnected) != (a.Session != "") {
					t.Fatalf("status and session contradict each other: %+v", a)
				}
			}
		}
	})
}
