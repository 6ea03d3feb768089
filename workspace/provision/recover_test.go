package provision

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// killedServer lets another process start a workspace, kills it with -9, and returns what it has left running.
func killedServer(t *testing.T, stateDir, dir, script string) (pid int) {
	t.Helper()
	server := testBinary(t, "server", stateDir, dir, script)
	stdout, err := server.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, server.Start())
	answer, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, server.Process.Kill())
	require.Error(t, server.Wait())
	pid, err = strconv.Atoi(strings.TrimSpace(answer))
	require.NoError(t, err)
	return pid
}

// known resolves the one workspace of these tests.
func known(spec Spec, out *lines) Resolve {
	return func(ref Ref) (Spec, func(Line), bool) { return spec, out.out, ref == spec.Ref() }
}

func TestAWorkspaceOutlivesAKilledServerAndIsAdopted(t *testing.T) {
	restarts := make(chan Restart, 1)
	p := testProcess(t, func(cfg *Config) { cfg.OnRestart = func(r Restart) { restarts <- r } })
	dir := t.TempDir()
	script := `trap 'echo goodbye; exit' TERM; echo up; while :; do [ -e go ] && echo went && rm go; sleep 0.05; done`
	pid := killedServer(t, p.owner, dir, script)

	out := newLines()
	found, err := p.Recover(t.Context(), known(shellSpec(dir, script), out))
	require.NoError(t, err)
	require.Empty(t, found.Lost)
	require.Len(t, found.Adopted, 1)
	instance := found.Adopted[0]
	require.Equal(t, pid, instance.PID())
	out.find(t, fmt.Sprintf("adopted process %d", pid))

	// Its output goes on where it was.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	out.find(t, "went")

	// Start joins it, and a second Recover leaves it alone.
	joined, err := p.Start(t.Context(), shellSpec(dir, script), out.out)
	require.NoError(t, err)
	require.Same(t, instance, joined)
	found, err = p.Recover(t.Context(), known(shellSpec(dir, script), out))
	require.NoError(t, err)
	require.Empty(t, found)

	// It is supervised like one of our own: it was established, so that it is started again.
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	restart := <-restarts
	require.Equal(t, restart.PID, instance.PID())
	out.find(t, "the process of workspace demo ended")

	stopped := newLines()
	require.NoError(t, p.Stop(t.Context(), "ws-1", stopped.out))
	stopped.find(t, "goodbye")
	requireGone(t, restart.PID)
}

func TestAdoptedWorkspacesAreStoppedPolitely(t *testing.T) {
	for name, adopt := range map[string]bool{"after they were recovered": true, "out of their record": false} {
		t.Run(name, func(t *testing.T) {
			p := testProcess(t)
			dir := t.TempDir()
			script := `trap 'sleep 0.2; echo goodbye; exit' TERM; echo up >up; while :; do sleep 0.05; done`
			pid := killedServer(t, p.owner, dir, script)
			require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(dir, "up")); return err == nil },
				30*time.Second, 5*time.Millisecond)
			if adopt {
				_, err := p.Recover(t.Context(), known(shellSpec(dir, script), newLines()))
				require.NoError(t, err)
			}
			out := newLines()
			require.NoError(t, p.Stop(t.Context(), "ws-1", out.out))
			require.Contains(t, out.of(SourceProcess), "goodbye")
			requireGone(t, pid)
			_, err := p.records.load("ws-1")
			require.ErrorIs(t, err, fs.ErrNotExist)
		})
	}
}

func TestStartAdoptsItsBuildOutOfARecordAndRefusesAnother(t *testing.T) {
	p := testProcess(t)
	dir := t.TempDir()
	pid := killedServer(t, p.owner, dir, `exec sleep 1000`)
	spec := shellSpec(dir, `exec sleep 1000`)
	spec.Build = 4
	_, err := p.Start(t.Context(), spec, nil)
	var busy *BusyError
	require.ErrorAs(t, err, &busy)
	spec.Build = 3
	instance, err := p.Start(t.Context(), spec, nil)
	require.NoError(t, err)
	require.Equal(t, pid, instance.PID())
	require.NoError(t, p.Stop(t.Context(), "ws-1", nil))
}

func TestAWorkspaceThatNobodyKnowsAnyMoreIsStopped(t *testing.T) {
	p := testProcess(t)
	dir := t.TempDir()
	pid := killedServer(t, p.owner, dir, `exec sleep 1000`)
	found, err := p.Recover(t.Context(), func(Ref) (Spec, func(Line), bool) { return Spec{}, nil, false })
	require.NoError(t, err)
	require.Empty(t, found)
	requireGone(t, pid)
}

func TestAWorkspaceThatEndedWithoutAServerIsReportedLostWithItsLastOutput(t *testing.T) {
	p := testProcess(t)
	dir := t.TempDir()
	script := `while [ ! -e go ]; do sleep 0.05; done; echo last words; printf 'cut o'; exit 1`
	if runtime.GOOS == "linux" {
		script = "sleep 1000 & " + script // found by its marks, which other systems do not show
	}
	pid := killedServer(t, p.owner, dir, script)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	require.NoError(t, waitExit(t.Context(), identity{PID: pid, StartTime: startTime(t, pid)}))

	out := newLines()
	spec := shellSpec(dir, script)
	found, err := p.Recover(t.Context(), known(spec, out))
	require.NoError(t, err)
	require.Equal(t, Recovered{Lost: []Lost{{Ref: spec.Ref(), Established: true}}}, found)
	require.Equal(t, []string{"last words", "cut o"}, out.of(SourceProcess))
	requireNothingLeft(t, p.owner)
}

// startTime is the start time of a process that may have ended already: then any will do.
func startTime(t *testing.T, pid int) uint64 {
	t.Helper()
	info, err := stat(pid)
	if err != nil {
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
	return info.start
}

func TestCloseLetsGoOfInstancesWithoutStoppingThem(t *testing.T) {
	p := testProcess(t)
	dir := t.TempDir()
	out := newLines()
	spec := shellSpec(dir, `echo up; exec sleep 1000`)
	instance, err := p.Start(t.Context(), spec, out.out)
	require.NoError(t, err)
	out.find(t, "up")
	pid := instance.PID()
	require.NoError(t, p.Close())
	select {
	case <-instance.Exited():
		require.Fail(t, "the instance runs on")
	default:
	}
	require.True(t, running(identity{PID: pid, StartTime: startTime(t, pid)}))

	next := testProcess(t, func(cfg *Config) { cfg.StateDir = p.owner })
	out = newLines()
	found, err := next.Recover(t.Context(), known(spec, out))
	require.NoError(t, err)
	require.Len(t, found.Adopted, 1)
	require.NoError(t, next.Stop(t.Context(), "ws-1", out.out))
	require.NotContains(t, out.of(SourceProcess), "up", "what was delivered is not delivered again")
	requireGone(t, pid)
}

func TestAProcessThatOnlyHasTheIDOfARecordedOneIsLeftAlone(t *testing.T) {
	h, err := newHost()
	require.NoError(t, err)
	for name, change := range map[string]func(*identity){
		"another start time": func(id *identity) { id.StartTime++ },
		"another boot":       func(id *identity) { id.BootID = "00000000-0000-0000-0000-000000000000" },
	} {
		t.Run(name, func(t *testing.T) {
			p := testProcess(t)
			innocent := exec.Command("sleep", "1000")
			require.NoError(t, innocent.Start())
			defer func() { _ = innocent.Process.Kill(); _ = innocent.Wait() }()
			id := identity{PID: innocent.Process.Pid, StartTime: startTime(t, innocent.Process.Pid), BootID: h.bootID}
			recorded := id
			change(&recorded)
			dir := t.TempDir()
			save := func() {
				require.NoError(t, os.MkdirAll(filepath.Join(dir, privateDir), 0o700))
				require.NoError(t, p.records.save(record{WorkspaceID: "ws-1", WorkspaceName: "demo", Build: 3, Dir: dir, Process: recorded}))
			}
			save()
			found, err := p.Recover(t.Context(), known(shellSpec(dir, "true"), newLines()))
			require.NoError(t, err)
			require.Len(t, found.Lost, 1)
			save()
			require.NoError(t, p.Stop(t.Context(), "ws-1", nil))
			save()
			instance, err := p.Start(t.Context(), shellSpec(dir, "exec sleep 1000"), nil)
			require.NoError(t, err)
			require.NotEqual(t, id.PID, instance.PID())
			require.NoError(t, p.Stop(t.Context(), "ws-1", nil))
			require.True(t, running(id))
		})
	}
}

func TestRecordsThatMakeNoSenseAreDropped(t *testing.T) {
	p := testProcess(t)
	for name, text := range map[string]string{
		"ws-1.json": "not JSON",
		"ws-2.json": `{"version": 99}`,
		"ws-3.json": `{"version": 1, "workspace_id": "ws-1", "build_number": 1, "dir": "/", "process": {"pid": 1}}`,
		".ws-4.123": "the rest of a crash",
		"README":    "not ours",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(p.owner, name), []byte(text), 0o600))
	}
	found, err := p.Recover(t.Context(), func(Ref) (Spec, func(Line), bool) { require.Fail(t, "nothing to resolve"); return Spec{}, nil, false })
	require.NoError(t, err)
	require.Empty(t, found)
	entries, err := os.ReadDir(p.owner)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.Equal(t, "README", entries[0].Name())

	require.NoError(t, os.WriteFile(filepath.Join(p.owner, "ws-1.json"), []byte("not JSON"), 0o600))
	instance, err := p.Start(t.Context(), shellSpec(t.TempDir(), "true"), nil)
	require.NoError(t, err)
	await(t, instance.Exited())
	require.NoError(t, os.WriteFile(filepath.Join(p.owner, "ws-1.json"), []byte("not JSON"), 0o600))
	require.NoError(t, p.Stop(t.Context(), "ws-1", nil))
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"workspace_id":"ws-1","build_number":1,"dir":"/x","process":{"pid":2,"start_time":3,"boot_id":"b"}}`))
	f.Add([]byte(`{"version":1,"workspace_id":"ws-1","grace_ns":-1}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := parseRecord("ws-1", data)
		if err != nil {
			return
		}
		require.Equal(t, "ws-1", rec.WorkspaceID)
		require.Greater(t, rec.Process.PID, 1)
		r := records{t.TempDir()}
		require.NoError(t, r.save(rec))
		again, err := r.load("ws-1")
		require.NoError(t, err)
		require.True(t, rec.StartedAt.Equal(again.StartedAt))
		again.StartedAt = rec.StartedAt
		require.Equal(t, rec, again)
	})
}
