package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The end-to-end tests run the real program: server, agent, services and
// tunnelers are processes of their own, built once for the test run.

var tunnelBinary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tunnel-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	tunnelBinary = filepath.Join(dir, "tunnel")
	args := []string{"build", "-o", tunnelBinary}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the program: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// patience is how long a test waits for something that a real process does
// before it is a failure; nothing passes by waiting for it.
const patience = 60 * time.Second

// host is one user's machine: a data directory, a home, and the programs that
// were started there. Nothing that was started may be left at the end.
type host struct {
	t       testing.TB
	dataDir string
	home    string
}

func newHost(t testing.TB) *host {
	t.Helper()
	h := &host{t: t, dataDir: shortTempDir(t), home: t.TempDir()}
	t.Cleanup(func() { h.requireNothingLeft() })
	return h
}

// shortTempDir is for paths of Unix sockets, which may have about 100 bytes.
func shortTempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "tn")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.Command(tunnelBinary, args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + h.home, "XDG_CONFIG_HOME=" + filepath.Join(h.home, "config"),
		"TUNNEL_DATA_DIR=" + h.dataDir, "TMPDIR=" + os.TempDir(), "GORACE=halt_on_error=1",
	}
	return cmd
}

// run runs a command to its end.
func (h *host) run(args ...string) (stdout, stderr string, code int) {
	h.t.Helper()
	return h.runEnv(nil, args...)
}

func (h *host) runEnv(env []string, args ...string) (stdout, stderr string, code int) {
	h.t.Helper()
	cmd := h.command(args...)
	cmd.Env = append(cmd.Env, env...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if cmd.ProcessState == nil {
		require.NoError(h.t, err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// mustRun is run for a command that has to succeed.
func (h *host) mustRun(args ...string) string {
	h.t.Helper()
	out, errOut, code := h.run(args...)
	require.Zero(h.t, code, "tunnel %s\n%s%s", strings.Join(args, " "), out, errOut)
	return out
}

// process is a program in the background, with its JSON events if it prints
// any.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	stderr *lockedBuffer
	mu     sync.Mutex
	events []jsonEvent
	more   chan struct{} // closed and made anew at each event
	done   chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start starts a command whose standard output is JSON events, or none.
func (h *host) start(args ...string) *process {
	h.t.Helper()
	p := &process{t: h.t, cmd: h.command(args...), stderr: &lockedBuffer{}, more: make(chan struct{}), done: make(chan struct{})}
	p.cmd.Stderr = p.stderr
	out, err := p.cmd.StdoutPipe()
	require.NoError(h.t, err)
	require.NoError(h.t, p.cmd.Start())
	go p.read(out)
	h.t.Cleanup(func() {
		select {
		case <-p.done:
		default:
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-p.done:
			case <-time.After(patience):
				_ = p.cmd.Process.Kill()
			}
		}
		if h.t.Failed() {
			h.t.Logf("tunnel %s\n%s%s", strings.Join(args, " "), p.transcript(), p.stderr)
		}
	})
	return p
}

// up starts `tunnel up` with JSON events.
func (h *host) up(args ...string) *process {
	return h.start(append([]string{"up", "-o", "json"}, args...)...)
}

func (p *process) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e jsonEvent
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		p.mu.Lock()
		p.events = append(p.events, e)
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
	}
	_ = p.cmd.Wait()
	close(p.done)
	p.mu.Lock()
	close(p.more)
	p.more = make(chan struct{})
	p.mu.Unlock()
}

func (p *process) transcript() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for _, e := range p.events {
		line, _ := json.Marshal(e)
		b.Write(append(line, '\n'))
	}
	return b.String()
}

// seen is what has come so far.
func (p *process) seen() []jsonEvent {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.events)
}

// await waits for the first event, from the given index on, that is wanted,
// and returns it with the index behind it.
func (p *process) await(from int, what string, want func(jsonEvent) bool) (jsonEvent, int) {
	p.t.Helper()
	limit := time.After(patience)
	for i := from; ; {
		p.mu.Lock()
		for ; i < len(p.events); i++ {
			if want(p.events[i]) {
				e := p.events[i]
				p.mu.Unlock()
				return e, i + 1
			}
		}
		more := p.more
		p.mu.Unlock()
		select {
		case <-more:
		case <-p.done:
			p.mu.Lock()
			rest := len(p.events) > i
			p.mu.Unlock()
			if !rest {
				require.FailNow(p.t, "the program ended before: "+what, p.transcript()+p.stderr.String())
			}
		case <-limit:
			require.FailNow(p.t, "timed out waiting for: "+what, p.transcript()+p.stderr.String())
		}
	}
}

func (p *process) awaitState(from int, state string) int {
	p.t.Helper()
	_, next := p.await(from, "state "+state, func(e jsonEvent) bool { return e.Event == "state" && e.To == state })
	return next
}

// awaitReady waits for the tunnel and returns the address of its first forward.
func (p *process) awaitReady() string {
	p.t.Helper()
	e, _ := p.await(0, "a forward", func(e jsonEvent) bool { return e.Event == "forward" })
	p.await(0, "ready", func(e jsonEvent) bool { return e.Event == "ready" })
	return e.Local
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(sig))
}

// exit waits for the end and returns the exit code.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		require.FailNow(p.t, "the program does not end", p.transcript()+p.stderr.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// kill ends a process the hard way.
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.done
}

func get(t testing.TB, url string) string {
	t.Helper()
	resp, err := (&http.Client{Timeout: patience}).Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s", b)
	return string(b)
}

// processesOf finds the processes, services included, that run for workspaces
// of the host's data directory, by their environment and command line.
func (h *host) processesOf() map[int]string {
	out := make(map[int]string)
	if runtime.GOOS != "linux" {
		return out
	}
	dirs, err := os.ReadDir("/proc")
	require.NoError(h.t, err)
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "environ"))
		args, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		if len(args) > 0 && (bytes.Contains(env, []byte(h.dataDir)) || bytes.Contains(args, []byte(h.dataDir))) {
			out[pid] = string(bytes.ReplaceAll(args, []byte{0}, []byte{' '}))
		}
	}
	return out
}

// agents finds the agent processes among them.
func (h *host) agents() []int {
	var pids []int
	for pid, args := range h.processesOf() {
		if strings.Contains(args, " agent") {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (h *host) requireNothingLeft() {
	h.t.Helper()
	if left := h.processesOf(); len(left) > 0 {
		for pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		require.Empty(h.t, left, "processes were left behind")
	}
}

// token reads the token that `tunnel serve` has left for its user.
func (h *host) token(server string) string {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.home, "config", "tunneler", "credentials.json"))
	require.NoError(h.t, err)
	var c credentials
	require.NoError(h.t, json.Unmarshal(b, &c))
	require.NotEmpty(h.t, c.Servers[server].Token)
	return c.Servers[server].Token
}
