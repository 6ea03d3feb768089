package provision

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/workspace/template"
)

func TestAFailedStartSaysWhyAndLeavesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for name, c := range map[string]struct {
		change func(*Spec)
		want   string
	}{
		"an agent that is not there": {
			func(s *Spec) { s.Template.Start, s.Agent.Argv = "", []string{"/no/such/agent"} }, "/no/such/agent: no such file or directory"},
		"a relative agent":              {func(s *Spec) { s.Agent.Argv = []string{"tunnel"} }, `agent program is "tunnel", expected an absolute path`},
		"no agent":                      {func(s *Spec) { s.Agent.Argv = nil }, `agent program is "", expected an absolute path`},
		"a workspace ID that is a path": {func(s *Spec) { s.WorkspaceID = "../x" }, `workspace ID is "../x"`},
		"no build":                      {func(s *Spec) { s.Build = 0 }, "build is 0, expected a number from 1"},
		"a relative directory":          {func(s *Spec) { s.Dir = "x" }, `directory is "x", expected an absolute path`},
		"a directory that is not there": {
			func(s *Spec) { s.Template.Directory = "/no/such/dir" }, "template directory cannot be used: stat /no/such/dir"},
		"a directory that is a file": {
			func(s *Spec) { s.Template.Directory = file }, "is not a directory"},
		"a directory outside":                  {func(s *Spec) { s.Template.Directory = "../x" }, "is outside the workspace's directory"},
		"a workspace directory that is a file": {func(s *Spec) { s.Dir = file }, "not a directory"},
		"somebody else's agent": {
			func(s *Spec) { s.Template.Provisioner = template.ProvisionerNone }, "expected provisioner process"},
	} {
		t.Run(name, func(t *testing.T) {
			p := testProcess(t)
			spec := shellSpec(t.TempDir(), "exec sleep 1000")
			c.change(&spec)
			_, err := p.Start(t.Context(), spec, nil)
			require.ErrorContains(t, err, c.want)
			ids, err := p.records.list()
			require.NoError(t, err)
			require.Empty(t, ids)
		})
	}
}

func TestACanceledStartLeavesNothing(t *testing.T) {
	p := testProcess(t)
	ctx, cancel := context.WithCancel(t.Context())
	p.sys = startHook{p.sys, cancel} // as if it were canceled while the process starts
	_, err := p.Start(ctx, shellSpec(t.TempDir(), "exec sleep 1000"), nil)
	require.ErrorIs(t, err, context.Canceled)
	requireNothingLeft(t, p.owner)
	_, err = p.records.load("ws-1")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = p.Start(ctx, shellSpec(t.TempDir(), "exec sleep 1000"), nil)
	require.ErrorIs(t, err, context.Canceled)
}

type startHook struct {
	system
	hook func()
}

func (h startHook) start(cmd command) (process, error) {
	defer h.hook()
	return h.system.start(cmd)
}

func TestAProcessThatCannotBeRecordedIsNotLeftRunning(t *testing.T) {
	p := testProcess(t)
	// A directory in the record's place lets no record be written there, not even by root.
	p.sys = startHook{p.sys, func() { require.NoError(t, os.MkdirAll(filepath.Join(p.owner, "ws-1.json", "x"), 0o700)) }}
	_, err := p.Start(t.Context(), shellSpec(t.TempDir(), "exec sleep 1000"), nil)
	require.Error(t, err)
	requireNothingLeft(t, p.owner)
	entries, err := os.ReadDir(p.owner)
	require.NoError(t, err)
	require.Len(t, entries, 1, "no half-written record is left")
}

func TestASecondStartJoinsItsOwnBuildAndIsRefusedAnother(t *testing.T) {
	p := testProcess(t)
	first, second := newLines(), newLines()
	spec := shellSpec(t.TempDir(), `echo up; trap 'echo usr1' USR1; while :; do sleep 0.05; done`)
	instance, err := p.Start(t.Context(), spec, first.out)
	require.NoError(t, err)
	first.find(t, "up")
	same, err := p.Start(t.Context(), spec, second.out)
	require.NoError(t, err)
	require.Same(t, instance, same)
	require.NoError(t, syscall.Kill(instance.PID(), syscall.SIGUSR1))
	second.find(t, "usr1")
	require.NotContains(t, first.of(SourceProcess), "usr1")

	spec.Build++
	_, err = p.Start(t.Context(), spec, nil)
	var busy *BusyError
	require.ErrorAs(t, err, &busy)
	require.EqualError(t, err, "workspace demo still runs build 3: stop it first")
	require.NoError(t, p.Stop(t.Context(), "ws-1", nil))
}

func TestTheEnvironmentIsMinimalAndHoldsNoSecret(t *testing.T) {
	p := testProcess(t, func(cfg *Config) {
		cfg.Environ = func() []string {
			return []string{"HOME=/home/me", "PATH=/bin:/usr/bin", "AWS_SECRET_ACCESS_KEY=secret", "LD_PRELOAD=x", "PWD=/", "TUNNEL_TOKEN=secret"}
		}
	})
	dir := t.TempDir()
	spec := shellSpec(dir, "")
	spec.Template.Start = ""
	spec.Template.Directory = "src"
	spec.Template.Env = map[string]string{"A": "b c", "HOME": "/srv", "TUNNELER_WORKSPACE_ID": "forged"}
	spec.Agent = AgentSpec{Argv: []string{"/usr/bin/env"}, Env: []string{"TUNNEL_AGENT_TOKEN_FILE=/run/token"}}
	out := newLines()
	instance, err := p.Start(t.Context(), spec, out.out)
	require.NoError(t, err)
	await(t, instance.Exited())
	require.ElementsMatch(t, []string{
		"A=b c", "HOME=/srv", "PATH=/bin:/usr/bin", "TUNNEL_AGENT_TOKEN_FILE=/run/token", "TUNNEL_BIN=/usr/bin/env",
		"TUNNELER_OWNER=" + p.owner, "TUNNELER_WORKSPACE_BUILD=3", "TUNNELER_WORKSPACE_DIR=" + dir,
		"TUNNELER_WORKSPACE_ID=ws-1", "TUNNELER_WORKSPACE_NAME=demo",
	}, out.of(SourceProcess))

	for path, mode := range map[string]fs.FileMode{
		filepath.Join(dir, "src"):                          fs.ModeDir | 0o700,
		filepath.Join(dir, ".tunneler"):                    fs.ModeDir | 0o700,
		filepath.Join(dir, ".tunneler", "output.log"):      0o600,
		filepath.Join(dir, ".tunneler", "output.position"): 0o600,
		p.owner: fs.ModeDir | 0o700,
	} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode(), path)
	}
}

func TestTheStartCommandRunsInTheTemplatesDirectoryAndFindsTheAgent(t *testing.T) {
	p := testProcess(t)
	work := t.TempDir()
	spec := shellSpec(t.TempDir(), `pwd; exec "$TUNNEL_BIN" agent is here`)
	spec.Template.Directory = work
	spec.Agent.Argv = []string{"/bin/echo", "agent"}
	out := newLines()
	instance, err := p.Start(t.Context(), spec, out.out)
	require.NoError(t, err)
	await(t, instance.Exited())
	work, err = filepath.EvalSymlinks(work)
	require.NoError(t, err)
	require.Equal(t, []string{work, "agent is here"}, out.of(SourceProcess))
}
