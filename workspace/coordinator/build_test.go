package coordinator

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/provision"
	"github.com/tunneler/tunneler/workspace/template"
)

// apiErr is the api.Error that err has to be.
func apiErr(t testing.TB, err error) *api.Error {
	t.Helper()
	var e *api.Error
	require.ErrorAs(t, err, &e)
	return e
}

func TestAWorkspaceIsStartedStoppedAndDeleted(t *testing.T) {
	r := newSite(t).start()
	w := r.make("demo", processTemplate)
	require.Equal(t, api.Build{Transition: events.TransitionStop, Status: events.JobSucceeded}, w.Build)

	b := r.build("demo", events.TransitionStart)
	require.Equal(t, events.JobSucceeded, b.Status, b.Error)
	require.Equal(t, "ann", b.Initiator)
	require.Equal(t, []string{"build 1, line 0", "build 1, line 1", "build 1, line 2"}, r.buildLog("demo", 1))
	rec := r.awaitRecord(w.ID, func(rec *record) bool { return rec.Agents[0].Lifecycle == events.LifecycleReady })
	require.Equal(t, events.AgentConnected, rec.Agents[0].Status)
	require.EqualValues(t, 1, r.site.world.builds(w.ID))

	b = r.build("demo", events.TransitionStop)
	require.Equal(t, events.JobSucceeded, b.Status, b.Error)
	require.Equal(t, []string{"stopped"}, r.buildLog("demo", 2))
	require.Zero(t, r.site.world.builds(w.ID))
	got, err := r.Workspace(t.Context(), "demo")
	require.NoError(t, err)
	require.Equal(t, events.AgentDisconnected, got.Agents[0].Status)

	b = r.build("demo", events.TransitionStart)
	require.Equal(t, events.JobSucceeded, b.Status, b.Error)
	require.EqualValues(t, 3, b.Number)
	dir := filepath.Join(r.site.dir, "w", w.ID)
	require.DirExists(t, dir)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "ro", "sub"), 0o700))
	require.NoError(t, os.Chmod(filepath.Join(dir, "ro"), 0o500))

	b, err = r.CreateBuild(t.Context(), "demo", api.CreateBuild{Transition: events.TransitionDelete})
	require.NoError(t, err)
	r.awaitRecord(w.ID, func(rec *record) bool { return rec.deleted() })
	require.NoDirExists(t, dir)
	_, err = r.Workspace(t.Context(), "demo")
	require.Equal(t, api.CodeNotFound, apiErr(t, err).Code)
	got, err = r.Workspace(t.Context(), w.ID)
	require.NoError(t, err, "its records are kept for a while")
	require.Equal(t, events.TransitionDelete, got.Build.Transition)
	require.Equal(t, []string{"stopped"}, r.buildLog(w.ID, 4))
	_, err = r.CreateBuild(t.Context(), w.ID, api.CreateBuild{Transition: events.TransitionStart})
	require.Equal(t, api.CodeNotFound, apiErr(t, err).Code)
	list, err := r.Workspaces(t.Context())
	require.NoError(t, err)
	require.Empty(t, list)

	again := r.make("demo", processTemplate)
	require.NotEqual(t, w.ID, again.ID, "the name is free")
	require.EqualValues(t, 4, b.Number)
}

func TestASecondStartJoinsTheFirst(t *testing.T) {
	s := newSite(t)
	s.world.silent = true
	r := s.start()
	w := r.make("demo", processTemplate)
	first, conflict, err := r.StartWorkspace(t.Context(), "demo")
	require.NoError(t, err)
	require.False(t, conflict)
	second, conflict, err := r.StartWorkspace(t.Context(), "demo")
	require.NoError(t, err)
	require.True(t, conflict)
	require.Equal(t, first.Number, second.Number)

	_, err = r.CreateBuild(t.Context(), "demo", api.CreateBuild{Transition: events.TransitionStop})
	require.Equal(t, api.CodeBuildActive, apiErr(t, err).Code)
	require.Equal(t, first.Number, apiErr(t, err).Build.Number)

	// The agent comes, and the build ends.
	r.until("the process runs", func() bool { return s.world.builds(w.ID) == 1 })
	tok, err := r.c.issueAgentToken(w.ID, 1)
	require.NoError(t, err)
	agent := s.world.agent("late", tok.Token)
	require.Equal(t, events.JobSucceeded, r.awaitBuild("demo", 1).Status)
	third, conflict, err := r.StartWorkspace(t.Context(), "demo")
	require.NoError(t, err)
	require.False(t, conflict)
	require.EqualValues(t, 1, third.Number, "it is started already")
	agent.kill()
}

func TestBuildsArePagedFromTheNewest(t *testing.T) {
	r := newSite(t).start()
	r.make("demo", noneTemplate)
	for i := range 6 {
		r.build("demo", []events.Transition{events.TransitionStart, events.TransitionStop}[i%2])
	}
	list, err := r.Builds(t.Context(), "demo", 0, 4)
	require.NoError(t, err)
	require.True(t, list.More)
	var numbers []int64
	for _, b := range list.Builds {
		numbers = append(numbers, b.Number)
		require.Equal(t, events.JobSucceeded, b.Status)
	}
	require.Equal(t, []int64{6, 5, 4, 3}, numbers)
	list, err = r.Builds(t.Context(), "demo", 3, 4)
	require.NoError(t, err)
	require.False(t, list.More)
	require.Len(t, list.Builds, 2)
	require.Equal(t, events.TransitionStart, list.Builds[1].Transition)
	_, err = r.Build(t.Context(), "demo", 7)
	require.Equal(t, api.CodeNotFound, apiErr(t, err).Code)
}

// real runs the workspaces of a site by real processes.
func real(t *testing.T, s *site) func(*Config) {
	return func(c *Config) {
		p, err := provision.NewProcess(provision.Config{StateDir: filepath.Join(s.dir, "p")})
		require.NoError(t, err)
		c.Provisioners = map[template.Provisioner]provision.Provisioner{template.ProvisionerProcess: p}
	}
}

func TestAStartFailsWithWhatTheProcessSaidLast(t *testing.T) {
	s := newSite(t)
	r := s.start(real(t, s))
	r.make("dies", "name: dies\nstart: echo one; echo the disk is on fire; exit 3\n")
	b := r.build("dies", events.TransitionStart)
	require.Equal(t, events.JobFailed, b.Status)
	require.Contains(t, b.Error, "exited with status 3")
	require.Contains(t, b.Error, "the disk is on fire")
	require.Contains(t, r.buildLog("dies", 1), "the disk is on fire")

	w := r.make("hangs", "name: hangs\nstart_timeout: 300ms\nstart: echo waiting for godot; exec sleep 1000\n")
	b = r.build("hangs", events.TransitionStart)
	require.Equal(t, events.JobFailed, b.Status)
	require.Contains(t, b.Error, "the agent did not report within 300ms; the last line of output is: waiting for godot")
	got, err := r.Workspace(t.Context(), "hangs")
	require.NoError(t, err)
	require.Equal(t, events.AgentTimeout, got.Agents[0].Status)

	require.Equal(t, events.JobSucceeded, r.build("hangs", events.TransitionStop).Status)
	require.Equal(t, events.JobSucceeded, r.build(w.ID, events.TransitionDelete).Status)
}

func TestAWorkspaceThatCannotBeStartedSaysWhy(t *testing.T) {
	s := newSite(t)
	r := s.start(real(t, s))
	r.make("nowhere", "name: nowhere\ndirectory: /does/not/exist\n")
	b := r.build("nowhere", events.TransitionStart)
	require.Equal(t, events.JobFailed, b.Status)
	require.Contains(t, b.Error, "/does/not/exist")
}

func TestAStartWithoutAProvisionerIsRefusedAtOnce(t *testing.T) {
	r := newSite(t).start(func(c *Config) { c.Provisioners = nil })
	_, err := r.CreateWorkspace(t.Context(), api.CreateWorkspace{Name: "demo", Template: "demo"})
	require.Equal(t, api.CodeBadRequest, apiErr(t, err).Code)
}

func TestAnAgentThatSomebodyElseStartsIsWaitedForAndThenInTimeOut(t *testing.T) {
	r := newSite(t).start()
	w := r.make("demo", "name: byhand\nprovisioner: none\nstart_timeout: 100ms\n")
	_, err := r.AgentToken(t.Context(), "demo", api.CreateAgentToken{})
	require.Equal(t, api.CodeConflict, apiErr(t, err).Code, "it is not started")
	require.Equal(t, events.JobSucceeded, r.build("demo", events.TransitionStart).Status, "at once")
	r.awaitRecord(w.ID, func(rec *record) bool { return rec.Agents[0].Status == events.AgentTimeout })

	tok, err := r.AgentToken(t.Context(), "demo", api.CreateAgentToken{})
	require.NoError(t, err)
	agent := r.site.world.agent("mine", tok.Token)
	r.awaitRecord(w.ID, func(rec *record) bool { return rec.Agents[0].Status == events.AgentConnected })

	require.Equal(t, events.JobSucceeded, r.build("demo", events.TransitionStop).Status)
	require.Equal(t, events.RejectBuildOver, (<-agent.refuse).Code, "it is told that it is over")
	<-agent.done
}

func TestOnlyAnAgentThatSomebodyElseStartsGetsATokenByHand(t *testing.T) {
	r := newSite(t).start()
	r.make("demo", processTemplate)
	_, err := r.AgentToken(t.Context(), "demo", api.CreateAgentToken{})
	require.Equal(t, api.CodeConflict, apiErr(t, err).Code)
}

func TestOfManyWhoWantANameOneGetsIt(t *testing.T) {
	r := newSite(t).start()
	errs := make(chan error)
	for range 8 {
		go func() {
			_, err := r.CreateWorkspace(t.Context(), api.CreateWorkspace{Name: "demo", Definition: noneTemplate})
			errs <- err
		}()
	}
	won := 0
	for range 8 {
		if err := <-errs; err == nil {
			won++
		} else {
			require.Equal(t, api.CodeExists, apiErr(t, err).Code)
		}
	}
	require.Equal(t, 1, won)
	list, err := r.Workspaces(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
}

func TestANameThatACrashLeftReservedIsTakenOver(t *testing.T) {
	r := newSite(t).start()
	_, err := r.c.workspaces.names.Create(t.Context(), "demo", "ws_lost")
	require.NoError(t, err)
	_, err = r.Workspace(t.Context(), "demo")
	require.Equal(t, api.CodeNotFound, apiErr(t, err).Code, "nothing half made is shown")
	require.Equal(t, "ws_lost", r.make("demo", noneTemplate).ID)
}

func TestANameThatACrashLeftToADeletedWorkspaceIsFree(t *testing.T) {
	r := newSite(t).start()
	w := r.make("demo", noneTemplate)
	_, err := r.c.workspaces.change(t.Context(), w.ID, func(rec *record) error {
		rec.DeletedAt = now()
		return nil
	})
	require.NoError(t, err)
	require.NotEqual(t, w.ID, r.make("demo", noneTemplate).ID)
}

func TestADeletedWorkspacesRecordsAreKeptForAWhile(t *testing.T) {
	r := newSite(t).start()
	w := r.make("demo", processTemplate)
	require.Equal(t, events.JobSucceeded, r.build("demo", events.TransitionStart).Status)
	require.NoError(t, errorOf(r.CreateBuild(t.Context(), "demo", api.CreateBuild{Transition: events.TransitionDelete})))
	r.awaitRecord(w.ID, func(rec *record) bool { return rec.deleted() })
	r.c.sweep(t.Context())
	log, err := r.site.store.Log(buildLogName(w.ID, 1))
	require.NoError(t, err)
	_, kept, err := log.Last(t.Context())
	require.NoError(t, err)
	require.True(t, kept)

	r.c.cfg.Retention = 1
	r.c.sweep(t.Context())
	_, kept, err = log.Last(t.Context())
	require.NoError(t, err)
	require.False(t, kept)
	_, err = r.c.workspaces.records.Get(t.Context(), w.ID)
	require.Error(t, err)
	_, err = r.c.workspaces.history.Get(t.Context(), buildKey(w.ID, 1))
	require.Error(t, err)
}

func errorOf[T any](_ T, err error) error { return err }

func TestRunIsOverWhenTheCoordinatorIsClosed(t *testing.T) {
	r := newSite(t).start()
	r.stop()
	require.Error(t, r.c.Run(t.Context()))
	require.False(t, errors.Is(r.c.Run(t.Context()), errInterrupted))
	require.NoError(t, r.c.Close(t.Context()), "twice is as good as once")
}
