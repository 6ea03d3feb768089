package provision

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tunneler/tunneler/workspace/template"
)

// role makes the test binary, when it is started again, another program than the tests.
const role = "PROVISION_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "":
		goleak.VerifyTestMain(m)
	case "server":
		serverRole()
	case "daemon":
		daemonRole(os.Environ())
	case "bare daemon":
		daemonRole(nil)
	case "sleeper":
		time.Sleep(time.Hour)
	}
}

// serverRole is a server that starts one workspace and is killed then: "server STATE-DIR DIR SCRIPT".
func serverRole() {
	p, err := NewProcess(Config{StateDir: os.Args[1]})
	if err != nil {
		panic(err)
	}
	instance, err := p.Start(context.Background(), shellSpec(os.Args[2], os.Args[3]), nil)
	if err != nil {
		panic(err)
	}
	instance.Established()
	fmt.Println(instance.PID())
	select {}
}

// daemonRole starts a process in a session of its own, prints its ID, and waits for as long as that runs.
func daemonRole(env []string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(slices.DeleteFunc(env, func(pair string) bool { return strings.HasPrefix(pair, role) }), role+"=sleeper")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	fmt.Println("daemon", cmd.Process.Pid)
	if os.Getenv("LEAVE_DAEMON") == "" {
		_ = cmd.Wait()
	}
}

// lines collects what a provisioner says.
type lines struct {
	mu      sync.Mutex
	all     []Line
	changed chan struct{}
}

func newLines() *lines { return &lines{changed: make(chan struct{})} }

func (l *lines) out(line Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
	close(l.changed)
	l.changed = make(chan struct{})
}

// find waits for a line that begins with prefix.
func (l *lines) find(t testing.TB, prefix string) Line {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		l.mu.Lock()
		all, changed := slices.Clone(l.all), l.changed
		l.mu.Unlock()
		if i := slices.IndexFunc(all, func(line Line) bool { return strings.HasPrefix(line.Text, prefix) }); i >= 0 {
			return all[i]
		}
		select {
		case <-changed:
		case <-timeout:
			require.Failf(t, "a line is missing", "no line begins with %q in %v", prefix, all)
		}
	}
}

// of returns the text of all lines of a source.
func (l *lines) of(source Source) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var texts []string
	for _, line := range l.all {
		if line.Source == source {
			texts = append(texts, line.Text)
		}
	}
	return texts
}

// testProcess makes a provisioner of real processes. When the test ends, nothing of it may be left.
func testProcess(t testing.TB, change ...func(*Config)) *Process {
	t.Helper()
	cfg := Config{StateDir: filepath.Join(t.TempDir(), "state"), Grace: 10 * time.Second}
	for _, c := range change {
		c(&cfg)
	}
	p, err := NewProcess(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, p.Close())
		requireNothingLeft(t, p.owner)
	})
	return p
}

func requireNothingLeft(t testing.TB, owner string) {
	t.Helper()
	h, err := newHost()
	require.NoError(t, err)
	ids, err := h.marked(owner)
	require.NoError(t, err)
	for _, id := range ids {
		require.NoError(t, h.sweep(context.Background(), owner, id)) // a failed test leaves nothing either
	}
	require.Empty(t, ids, "processes of these workspaces are left")
}

// shellSpec is a workspace that runs a script in place of an agent.
func shellSpec(dir, script string) Spec {
	return Spec{
		WorkspaceID: "ws-1", WorkspaceName: "demo", Build: 3, Dir: dir,
		Template: template.Template{Name: "test", Provisioner: template.ProvisionerProcess, Directory: ".", Start: script},
		Agent:    AgentSpec{Argv: []string{"/bin/false"}},
	}
}

// await waits for a channel to be closed.
func await(t testing.TB, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		require.Fail(t, "nothing happened for 30 seconds")
	}
}

// requireGone asserts that a process has ended. Nobody may have reaped it yet.
func requireGone(t testing.TB, pid int) {
	t.Helper()
	info, err := stat(pid)
	require.True(t, err != nil || info.zombie, "process %d runs", pid)
}
