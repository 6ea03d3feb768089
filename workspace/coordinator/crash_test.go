package coordinator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/client"
)

// crash ends the coordinator with no patience at all: what it was doing is left
// as it is.
func (r *running) crash() {
	r.once.Do(func() {
		dead, cancel := context.WithCancel(context.Background())
		cancel()
		r.http.CloseClientConnections()
		require.NoError(r.t, r.c.Close(dead))
		require.NoError(r.t, <-r.ran)
		r.Client.Close()
		r.http.CloseClientConnections()
		r.http.Close()
	})
}

// accepted is a build that a coordinator has acknowledged.
type accepted struct {
	workspace string // id
	build     api.Build
}

// A coordinator is ended and started again at any moment of any build, while
// clients ask for builds as they like. Nothing that was acknowledged is lost.
func TestNothingAcknowledgedIsLostWhenCoordinatorsCrash(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { crashes(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func crashes(t *testing.T, random *rand.Rand) {
	s := newSite(t)
	r := s.start()
	var ids []string
	for i := range 3 {
		ids = append(ids, r.make(fmt.Sprint("w", i), processTemplate).ID)
	}
	var mine []accepted
	for range 8 {
		c := client.New(client.FixedURL(r.http.URL), client.StaticToken(s.token(api.ScopeOwner)), client.Options{})
		for range random.IntN(6) {
			id := ids[random.IntN(len(ids))]
			tr := []events.Transition{events.TransitionStart, events.TransitionStop}[random.IntN(2)]
			b, err := c.CreateBuild(t.Context(), id, api.CreateBuild{Transition: tr})
			var e *api.Error
			switch {
			case err == nil && b.Number > 0:
				mine = append(mine, accepted{id, b})
			case errors.As(err, &e) && e.Code == api.CodeBuildActive:
				mine = append(mine, accepted{id, *e.Build})
			default:
				require.NoError(t, err)
			}
			_ = sleep(t.Context(), time.Duration(random.IntN(8))*time.Millisecond) // any moment
		}
		c.Close()
		if random.IntN(3) == 0 {
			r.stop()
		} else {
			r.crash()
		}
		r = s.start()
	}

	for _, a := range mine {
		b := r.awaitBuild(a.workspace, a.build.Number)
		require.Equal(t, a.build.Transition, b.Transition)
		require.Contains(t, []events.JobStatus{events.JobSucceeded, events.JobFailed}, b.Status)
	}
	for _, id := range ids {
		list, err := r.Builds(t.Context(), id, 0, maxPage)
		require.NoError(t, err)
		builds := list.Builds
		slices.Reverse(builds)
		for i, b := range builds {
			require.EqualValues(t, i+1, b.Number, "no number is left out or given twice")
			require.True(t, b.Status.Final())
			if i > 0 {
				require.False(t, b.CreatedAt.Before(builds[i-1].EndedAt), "at most one is active: %+v", builds)
			}
			// A stop that is done again says so again.
			lines := slices.DeleteFunc(r.buildLog(id, b.Number), func(l string) bool { return l == "stopped" })
			require.Equal(t, len(lines), len(slices.Compact(slices.Sorted(slices.Values(lines)))), "no line comes twice: %v", lines)
		}
		rec, _, err := r.c.workspaces.resolve(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, rec.admits(), s.world.builds(id), "what runs is what is said to: %+v", rec)
		if rec.started() {
			r.awaitRecord(id, func(rec *record) bool {
				return rec.Agents[0].Status == events.AgentConnected && rec.Agents[0].Lifecycle == events.LifecycleReady
			})
		}
	}
}

// One start is interrupted in each of its moments.
func TestAStartThatIsInterruptedIsTakenUp(t *testing.T) {
	for name, before := range map[string]func(*record){
		"before it has begun": func(*record) {},
		"while it runs":       func(r *record) { r.beginBuild(1, now()) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			r := s.start()
			w := r.make("demo", processTemplate)
			r.stop()
			// As a coordinator leaves it that was killed.
			rec, created, err := requestAs(t, s, w.ID)
			require.NoError(t, err)
			require.True(t, created)
			before(&rec)
			s.put(t, rec)
			r = s.start()
			require.Equal(t, events.JobSucceeded, r.awaitBuild("demo", 1).Status)
		})
	}
}

func TestAStartWhoseProcessRunsIsTakenUpWithThatProcess(t *testing.T) {
	s := newSite(t)
	s.world.silent = true
	r := s.start()
	w := r.make("demo", processTemplate)
	_, _, err := r.StartWorkspace(t.Context(), "demo")
	require.NoError(t, err)
	r.until("the process runs", func() bool { return s.world.builds(w.ID) == 1 })
	r.crash()
	r = s.start()
	tok, err := r.c.issueAgentToken(w.ID, 1)
	require.NoError(t, err)
	agent := s.world.agent("late", tok.Token)
	defer agent.kill()
	require.Equal(t, events.JobSucceeded, r.awaitBuild("demo", 1).Status)
	require.Equal(t, 1, s.world.starts, "it was not started again")
}

// A build of another node is left to that node.
func TestABuildIsTheBusinessOfTheNodeThatHasTheProcesses(t *testing.T) {
	s := newSite(t)
	here := s.start(func(c *Config) { c.Node = "here" })
	w := here.make("demo", processTemplate)
	require.Equal(t, events.JobSucceeded, here.build("demo", events.TransitionStart).Status)
	there := s.start(func(c *Config) { c.Node = "there" })
	b, err := there.CreateBuild(t.Context(), "demo", api.CreateBuild{Transition: events.TransitionStop})
	require.NoError(t, err)
	require.Equal(t, events.JobSucceeded, there.awaitBuild("demo", b.Number).Status)
	rec, _, err := there.c.workspaces.resolve(t.Context(), w.ID)
	require.NoError(t, err)
	require.Equal(t, "here", rec.Node)
}

func requestAs(t *testing.T, s *site, id string) (record, bool, error) {
	t.Helper()
	g, err := openRegistry(t.Context(), s.store, "local")
	require.NoError(t, err)
	defer g.cache.Close()
	return g.requestBuild(t.Context(), id, api.CreateBuild{Transition: events.TransitionStart}, "ann")
}

// put stores a record as it is.
func (s *site) put(t *testing.T, rec record) {
	t.Helper()
	g, err := openRegistry(t.Context(), s.store, "local")
	require.NoError(t, err)
	defer g.cache.Close()
	_, err = g.change(t.Context(), rec.ID, func(r *record) error {
		*r = rec
		return nil
	})
	require.NoError(t, err)
}
