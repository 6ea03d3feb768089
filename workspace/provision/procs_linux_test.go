package provision

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// daemon starts a workspace whose agent runs this binary as a daemon, which starts a process in another session.
func daemon(t *testing.T, p *Process, as string, env ...string) (instance *Instance, pid int) {
	t.Helper()
	spec := shellSpec(t.TempDir(), "")
	spec.Template.Start = ""
	spec.Agent = AgentSpec{Argv: []string{os.Args[0]}, Env: append(env, role+"="+as)}
	out := newLines()
	instance, err := p.Start(t.Context(), spec, out.out)
	require.NoError(t, err)
	pid, err = strconv.Atoi(strings.TrimPrefix(out.find(t, "daemon ").Text, "daemon "))
	require.NoError(t, err)
	return instance, pid
}

func TestAProcessThatLeftTheSessionIsFoundByItsMarks(t *testing.T) {
	p := testProcess(t)
	instance, pid := daemon(t, p, "daemon", "LEAVE_DAEMON=1")
	await(t, instance.Exited()) // its parent has ended, on probation
	requireGone(t, pid)

	_, pid = daemon(t, p, "daemon")
	info, err := stat(pid)
	require.NoError(t, err)
	require.Equal(t, pid, info.session)
	require.NoError(t, p.Stop(t.Context(), "ws-1", nil))
	requireGone(t, pid)
}

func TestAProcessThatAlsoThrewItsEnvironmentAwayIsFoundByItsParent(t *testing.T) {
	p := testProcess(t)
	_, pid := daemon(t, p, "bare daemon")
	_, marked := marksOf(pid)
	require.False(t, marked)
	require.NoError(t, p.Stop(t.Context(), "ws-1", nil))
	requireGone(t, pid)
}

func TestProcessesThatWereNeverRecordedAreEnded(t *testing.T) {
	p := testProcess(t)
	output, err := os.Create(filepath.Join(t.TempDir(), "output"))
	require.NoError(t, err)
	defer func() { require.NoError(t, output.Close()) }()
	// As if the server had been killed between the start and the record.
	start := func(owner string) process {
		proc, err := p.sys.start(command{
			argv: []string{shell, "-c", "exec sleep 1000"}, dir: "/", output: output,
			env: []string{"PATH=/bin:/usr/bin", envOwner + "=" + owner, envWorkspaceID + "=ws-9"}, owner: owner, workspaceID: "ws-9",
		})
		require.NoError(t, err)
		return proc
	}
	ours, others := start(p.owner), start("/another/server")
	defer func() {
		require.NoError(t, others.kill(context.Background()))
		others.reap()
	}()
	found, err := p.Recover(t.Context(), func(Ref) (Spec, func(Line), bool) { return Spec{}, nil, false })
	require.NoError(t, err)
	require.Empty(t, found)
	requireGone(t, ours.identity().PID)
	ours.reap()
	require.True(t, running(others.identity()), "another server's workspace is left alone")

	// Not even a copied record makes it ours.
	_, ok := p.sys.find(p.owner, "ws-9", others.identity())
	require.False(t, ok)
	_, ok = p.sys.find("/another/server", "ws-9", others.identity())
	require.True(t, ok)
}

func TestWaitingForAnExitEndsWithItsContext(t *testing.T) {
	p := testProcess(t)
	instance, err := p.Start(t.Context(), shellSpec(t.TempDir(), "exec sleep 1000"), nil)
	require.NoError(t, err)
	id := identity{PID: instance.PID(), StartTime: startTime(t, instance.PID())}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- waitExit(ctx, id) }()
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	go func() { ended <- waitExit(t.Context(), id) }()
	require.NoError(t, p.Stop(t.Context(), "ws-1", nil))
	require.NoError(t, <-ended)
	require.NoError(t, waitExit(t.Context(), id))
}

func TestTheStatusOfAProcessIsReadWhateverItsName(t *testing.T) {
	const rest = "S 2 3 4 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 1000 10"
	for _, name := range []string{"sh", "a b", ")", "x) Z 9 9 9 (y", "\n"} {
		info, err := parseStat(fmt.Appendf(nil, "17 (%s) %s\n", name, rest))
		require.NoError(t, err, "%q", name)
		require.Equal(t, processInfo{pid: 17, ppid: 2, pgid: 3, session: 4, start: 987654}, info)
	}
	info, err := parseStat([]byte("17 (sh) Z" + rest[1:]))
	require.NoError(t, err)
	require.True(t, info.zombie)
	for _, text := range []string{"", "17", "17 (sh)", "17 )sh(", "x (sh) " + rest, "17 (sh) S a b c" + rest[7:], "17 (sh) S 1 2"} {
		_, err := parseStat([]byte(text))
		require.Error(t, err, "%q", text)
	}
}

func FuzzParseStat(f *testing.F) {
	self, err := os.ReadFile("/proc/self/stat")
	require.NoError(f, err)
	f.Add(self)
	f.Add([]byte("17 (x) Z 9 (y) S 2 3 4"))
	f.Add([]byte(")("))
	f.Fuzz(func(t *testing.T, data []byte) {
		if info, err := parseStat(data); err != nil {
			require.Zero(t, info)
		}
	})
}
