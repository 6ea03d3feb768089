package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
)

// fakeLogs are logs in memory.
type fakeLogs struct {
	id   int64
	logs map[string][]events.Log
}

func (f *fakeLogs) add(name string) {
	f.id += 3 // IDs do not grow by one
	f.logs[name] = append(f.logs[name], events.Log{ID: f.id, Output: name})
}

func (f *fakeLogs) page(_ context.Context, name string, after int64, limit int) (page []events.Log, _ error) {
	for _, l := range f.logs[name] {
		if l.ID > after && len(page) < limit {
			page = append(page, l)
		}
	}
	return page, nil
}

func (f *fakeLogs) lastID(_ context.Context, name string) (int64, error) {
	if l := f.logs[name]; len(l) > 0 {
		return l[len(l)-1].ID, nil
	}
	return 0, nil
}

// viewer is a watcher with its connection, and what it has been sent, over all
// its connections.
type viewer struct {
	t interface {
		Helper()
		Fatalf(string, ...any)
	}
	world  *story
	script *script
	build  *events.BuildUpdate
	agent  *events.AgentUpdate
	// fresh is set until the first build update of a connection.
	fresh  bool
	builds []int64 // IDs of the lines seen
	agents []int64
	lose   func() bool
	// fromBuild and fromProcess are where a connection without a cursor begins
	// to read: the newest build, and the process that lives or the next.
	fromBuild   int64
	fromProcess int
	gone        bool
	newestBuild int64
}

var errLost = errors.New("connection lost")

func (v *viewer) connect() {
	after := func(ids []int64) int64 {
		if len(ids) == 0 {
			return 0
		}
		return ids[len(ids)-1]
	}
	v.script = newScript("", after(v.builds), after(v.agents), v.world.logs, v.take)
	v.fresh = true
}

// take checks each message against the rules of the protocol.
func (v *viewer) take(m events.WatchMessage) error {
	if v.lose() {
		return errLost
	}
	if _, err := events.EncodeWatchMessage(m); err != nil {
		v.t.Fatalf("a message that cannot be sent: %v", err)
	}
	switch {
	case m.BuildUpdate != nil:
		if !v.fresh && *v.build == *m.BuildUpdate {
			v.t.Fatalf("a build update without a change: %+v", *m.BuildUpdate)
		}
		if m.BuildUpdate.Number < v.newestBuild {
			v.t.Fatalf("an older build's update: %+v", *m.BuildUpdate)
		}
		v.fresh, v.newestBuild = false, m.BuildUpdate.Number
		v.build, v.agent = m.BuildUpdate, nil
		if m.BuildUpdate.Status == events.JobSucceeded {
			if missing := v.world.missing(v.world.buildLines, v.builds, m.BuildUpdate.Number); missing > 0 {
				v.t.Fatalf("line %d of build %d comes after its end", missing, m.BuildUpdate.Number)
			}
		}
	case m.AgentUpdate != nil:
		u := *m.AgentUpdate
		if v.build == nil || v.fresh || v.build.Number != u.Build || v.build.Transition != events.TransitionStart || v.build.Status != events.JobSucceeded {
			v.t.Fatalf("an agent update ahead of its build's: %+v after %+v", u, v.build)
		}
		if v.agent != nil && *v.agent == u {
			v.t.Fatalf("an agent update without a change: %+v", u)
		}
		v.agent = m.AgentUpdate
		if u.Lifecycle == events.LifecycleReady {
			for _, id := range v.world.beforeReady[u.ID] {
				if !slices.Contains(v.agents, id) {
					v.t.Fatalf("startup line %d of %s comes after it was ready", id, u.ID)
				}
			}
		}
	case m.BuildLog != nil:
		if n := len(v.builds); n > 0 && m.BuildLog.ID <= v.builds[n-1] {
			v.t.Fatalf("build line %d after %d", m.BuildLog.ID, v.builds[n-1])
		}
		v.builds = append(v.builds, m.BuildLog.ID)
	case m.AgentLog != nil:
		if n := len(v.agents); n > 0 && m.AgentLog.ID <= v.agents[n-1] {
			v.t.Fatalf("agent line %d after %d", m.AgentLog.ID, v.agents[n-1])
		}
		v.agents = append(v.agents, m.AgentLog.ID)
	}
	return nil
}

// look shows the viewer the record as it is.
func (v *viewer) look() {
	if v.gone {
		return
	}
	if !v.script.begun {
		r := &v.world.rec
		if len(v.builds) == 0 {
			v.fromBuild = r.Build.Number
		}
		if len(v.agents) == 0 {
			v.fromProcess = len(r.Processes)
			if v.fromProcess > 0 && r.Processes[v.fromProcess-1].Build == r.admits() {
				v.fromProcess--
			}
		}
	}
	err := v.script.show(context.Background(), &v.world.rec)
	var over *events.WatchError
	switch {
	case err == nil:
		if v.world.rec.deleted() {
			v.t.Fatalf("the watch of a deleted workspace goes on")
		}
	case errors.Is(err, errLost):
		v.connect()
	case errors.As(err, &over):
		if !v.world.rec.deleted() || over.Code != events.WatchNotFound || over.Retryable {
			v.t.Fatalf("the watch ends with %+v", over)
		}
		v.gone = true
	default:
		v.t.Fatalf("the watch fails: %v", err)
	}
}

// story is what happens to a workspace.
type story struct {
	rec         record
	logs        *fakeLogs
	buildLines  map[int64][]int64  // by build
	agentLines  map[string][]int64 // by agent id
	beforeReady map[string][]int64 // by agent id
	processes   int
}

func newStory() *story {
	return &story{
		rec: stopped(), logs: &fakeLogs{logs: make(map[string][]events.Log)},
		buildLines: make(map[int64][]int64), agentLines: make(map[string][]int64), beforeReady: make(map[string][]int64),
	}
}

// missing is the first line of a build that is not in seen; 0 if there is none.
func (s *story) missing(lines map[int64][]int64, seen []int64, build int64) int64 {
	for _, id := range lines[build] {
		if !slices.Contains(seen, id) {
			return id
		}
	}
	return 0
}

// step does one thing that can happen.
func (s *story) step(t *rapid.T) {
	r := &s.rec
	agent := r.agent(agentName)
	session := session1(0, "s")
	if agent != nil {
		session = session1(agent.Build, "s")
	}
	switch rapid.SampledFrom([]string{"request", "begin", "finish", "line", "line", "hello", "restart", "agent line", "agent line", "report", "drop", "fail"}).Draw(t, "step") {
	case "request":
		tr := rapid.SampledFrom([]events.Transition{events.TransitionStart, events.TransitionStart, events.TransitionStop, events.TransitionStop, events.TransitionDelete}).Draw(t, "transition")
		_, _ = r.requestBuild(api.CreateBuild{Transition: tr}, "ann", "here", day)
	case "begin":
		r.beginBuild(r.Build.Number, day)
	case "finish":
		r.finishBuild(r.Build.Number, nil, day)
	case "fail":
		r.finishBuild(r.Build.Number, errors.New("boom"), day)
	case "line":
		if r.Build.Status == events.JobRunning {
			s.logs.add(buildLogName(r.ID, r.Build.Number))
			s.buildLines[r.Build.Number] = append(s.buildLines[r.Build.Number], s.logs.id)
		}
	case "hello", "restart":
		if agent == nil || s.processes > maxProcesses-2 {
			return
		}
		id := agent.ID
		if id == "" || rapid.IntRange(0, 3).Draw(t, "anew") == 0 {
			s.processes++
			id = fmt.Sprintf("agent-%d", s.processes)
		}
		r.hello(session, id, "v", day)
	case "agent line":
		if agent != nil && agent.Session != "" && r.admits() == agent.Build {
			s.logs.add(agentLogName(r.ID, agent.ID))
			s.agentLines[agent.ID] = append(s.agentLines[agent.ID], s.logs.id)
			if agent.Lifecycle != events.LifecycleReady {
				s.beforeReady[agent.ID] = append(s.beforeReady[agent.ID], s.logs.id)
			}
		}
	case "report":
		l := rapid.SampledFrom([]events.Lifecycle{events.LifecycleStarting, events.LifecycleReady, events.LifecycleStartError, events.LifecycleShuttingDown}).Draw(t, "lifecycle")
		r.report(session, events.AgentLifecycle{Lifecycle: l}, day)
	case "drop":
		r.drop(session, day)
	}
}

// A watcher that looks at random, and whose connection is lost at random, in the
// middle of a message even, ends in the same picture as one that sees everything;
// lines come once and in order.
func TestAWatchThatDropsAndResumesMissesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStory()
		all := &viewer{t: t, world: s, lose: func() bool { return false }}
		lossy := &viewer{t: t, world: s, lose: func() bool { return rapid.IntRange(0, 9).Draw(t, "lose") == 0 }}
		all.connect()
		all.look()
		lossy.connect()
		lossy.lose = all.lose
		lossy.look() // both begin before the first build
		lossy.lose = func() bool { return rapid.IntRange(0, 9).Draw(t, "lose") == 0 }
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			s.step(t)
			all.look()
			if rapid.Bool().Draw(t, "look") {
				lossy.look()
			}
			if rapid.IntRange(0, 9).Draw(t, "drop") == 0 && !lossy.gone {
				lossy.connect()
			}
		}
		lossy.lose = all.lose
		lossy.look()
		for _, v := range []*viewer{all, lossy} {
			var builds, agents []int64
			for n := max(v.fromBuild, 1); n <= s.rec.Build.Number; n++ {
				builds = append(builds, s.buildLines[n]...)
			}
			if !slices.Equal(v.builds, builds) {
				t.Fatalf("build lines are %v of %v", v.builds, builds)
			}
			for _, p := range s.rec.Processes[v.fromProcess:] {
				agents = append(agents, s.agentLines[p.AgentID]...)
			}
			// What an agent says once it is ready is not followed.
			if !slices.Equal(v.agents, agents[:min(len(v.agents), len(agents))]) {
				t.Fatalf("agent lines are %v of %v", v.agents, agents)
			}
		}
		if *all.build != *lossy.build || (all.agent == nil) != (lossy.agent == nil) || all.agent != nil && *all.agent != *lossy.agent {
			t.Fatalf("the pictures differ: %+v %+v and %+v %+v", all.build, all.agent, lossy.build, lossy.agent)
		}
		if *all.build != s.rec.Build.Update() || all.gone != s.rec.deleted() || lossy.gone != s.rec.deleted() {
			t.Fatalf("the picture is not what is: %+v, is %+v", all.build, s.rec.Build)
		}
	})
}

func TestAFreshWatchSeesTheNewestBuildsLogOnly(t *testing.T) {
	s := newStory()
	s.rec = built(t, events.TransitionStart, events.JobRunning)
	s.logs.add(buildLogName("ws_a", 1))
	require.Nil(t, s.rec.hello(session1(1, "s"), "agent-1", "v", day))
	s.logs.add(agentLogName("ws_a", "agent-1"))
	s.rec.finishBuild(1, nil, day)
	_, err := s.rec.requestBuild(api.CreateBuild{Transition: events.TransitionStop}, "ann", "here", day)
	require.NoError(t, err)
	s.logs.add(buildLogName("ws_a", 2))
	s.rec.finishBuild(2, nil, day)

	v := &viewer{t: t, world: s, lose: func() bool { return false }}
	v.connect()
	v.look()
	require.Equal(t, []int64{9}, v.builds)
	require.Empty(t, v.agents, "its agent is gone")
	require.Equal(t, events.TransitionStop, v.build.Transition)
}

func TestWhichLogsAWatchFollows(t *testing.T) {
	s := newScript("", 0, 0, nil, nil)
	r := built(t, events.TransitionStart, events.JobRunning)
	require.Equal(t, []string{"build.ws_a.1"}, s.follows(&r))
	require.Nil(t, r.hello(session1(1, "s"), "agent-1", "v", day))
	require.Equal(t, []string{"build.ws_a.1"}, s.follows(&r), "the agent's turn comes after its build's")
	r.finishBuild(1, nil, day)
	require.Equal(t, []string{"agent.ws_a.agent-1"}, s.follows(&r))
	r.report(session1(1, "s"), events.AgentLifecycle{Lifecycle: events.LifecycleReady}, day)
	require.Empty(t, s.follows(&r), "nothing is held for a workspace that runs")
	_, err := r.requestBuild(api.CreateBuild{Transition: events.TransitionStop}, "ann", "here", day)
	require.NoError(t, err)
	require.Equal(t, []string{"build.ws_a.2", "agent.ws_a.agent-1"}, s.follows(&r))
}
