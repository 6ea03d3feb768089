package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// served is a host with `tunnel serve` running and the demo started.
func served(t *testing.T) (h *host, url string, server *process) {
	h = newHost(t)
	url, server = h.serveProcess("127.0.0.1:0")
	h.mustRun("workspaces", "create", "demo", "--server", url)
	h.mustRun("workspaces", "start", "demo", "--server", url)
	t.Cleanup(func() { h.run("workspaces", "stop", "demo", "--server", url) })
	return h, url, server
}

func TestAWarmStartJoinsARunningWorkspace(t *testing.T) {
	h, url, _ := served(t)
	agents := h.agents()
	up := h.up("demo", "-p", "0:3000", "--server", url)
	get(t, "http://"+up.awaitReady()+"/healthz")
	require.Equal(t, agents, h.agents())
	up.signal(os.Interrupt)
	require.Zero(t, up.exit())
	require.Equal(t, agents, h.agents(), "a server of its own keeps its workspaces")
}

func TestAWorkspaceStoppedUnderTheTunnel(t *testing.T) {
	t.Run("on-stop wait rides it out and goes on when somebody starts it", func(t *testing.T) {
		h, url, _ := served(t)
		up := h.up("demo", "-p", "0:3000", "--server", url, "--on-stop", "wait")
		addr := up.awaitReady()
		next := up.awaitState(0, "applicationUp")
		h.mustRun("workspaces", "stop", "demo", "--server", url)
		next = up.awaitState(next, "waitToStart")
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err, "the listener stays open")
		conn.Close()
		h.mustRun("workspaces", "start", "demo", "--server", url)
		up.awaitState(next, "applicationUp")
		get(t, "http://"+addr+"/healthz")
		up.signal(os.Interrupt)
		require.Zero(t, up.exit())
	})
	t.Run("on-stop exit ends", func(t *testing.T) {
		h, url, _ := served(t)
		up := h.up("demo", "-p", "0:3000", "--server", url, "--on-stop", "exit")
		up.awaitReady()
		h.mustRun("workspaces", "stop", "demo", "--server", url)
		require.Equal(t, exitNotUp, up.exit())
		require.Contains(t, up.stderr.String(), "the workspace is stopped")
	})
	t.Run("on-stop restart starts it again", func(t *testing.T) {
		h, url, _ := served(t)
		up := h.up("demo", "-p", "0:3000", "--server", url, "--on-stop", "restart")
		addr := up.awaitReady()
		next := up.awaitState(0, "applicationUp")
		h.mustRun("workspaces", "stop", "demo", "--server", url)
		up.awaitState(next, "applicationUp")
		get(t, "http://"+addr+"/healthz")
		up.signal(os.Interrupt)
		require.Zero(t, up.exit())
	})
	t.Run("deleted ends, whatever on-stop says", func(t *testing.T) {
		h, url, _ := served(t)
		up := h.up("demo", "-p", "0:3000", "--server", url)
		up.awaitReady()
		h.mustRun("workspaces", "delete", "demo", "--server", url)
		require.Equal(t, exitNotFound, up.exit())
	})
}

func TestAnAgentKilledTheHardWayIsReplacedAndTheTunnelGoesOn(t *testing.T) {
	h, url, _ := served(t)
	up := h.up("demo", "-p", "0:3000", "--server", url)
	addr := up.awaitReady()
	next := up.awaitState(0, "applicationUp")
	before := h.agents()
	require.Len(t, before, 1)
	require.NoError(t, syscall.Kill(before[0], syscall.SIGKILL))
	up.awaitState(next, "applicationUp")
	get(t, "http://"+addr+"/healthz")
	after := h.agents()
	require.Len(t, after, 1)
	require.NotEqual(t, before, after)
	up.signal(os.Interrupt)
	require.Zero(t, up.exit())
}

func TestATunnelDoesNotNoticeThatItsServerWasKilledAndRestarted(t *testing.T) {
	h, url, server := served(t)
	agents := h.agents()
	up := h.up("demo", "-p", "0:3000", "--server", url)
	addr := up.awaitReady()

	// One stream that lasts, and one request after the other, all the while.
	resp, err := http.Get("http://" + addr + "/stream?n=1000&interval=10ms")
	require.NoError(t, err)
	defer resp.Body.Close()
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				failed <- nil
				return
			default:
			}
			if err := echo(addr, strings.Repeat("traffic", 1000)); err != nil {
				failed <- err
				return
			}
		}
	}()

	server.kill()
	_, server = h.serveProcess(strings.TrimPrefix(url, "http://"))
	require.Eventually(t, func() bool {
		out, _, code := h.run("workspaces", "list", "--server", url)
		return code == 0 && strings.Contains(out, "ready")
	}, patience, 50*time.Millisecond, "the agent has come back to the new server")
	require.Equal(t, agents, h.agents(), "the workspace was adopted, not started again")
	close(stop)
	require.NoError(t, <-failed)
	buf := make([]byte, 1)
	_, err = resp.Body.Read(buf)
	require.NoError(t, err, "the stream that was open all the while still flows")
	for _, e := range up.seen() {
		require.False(t, e.Event == "state" && e.From == "applicationUp", "the tunnel never went down: %+v", e)
	}
	up.signal(os.Interrupt)
	require.Zero(t, up.exit())
	h.mustRun("workspaces", "stop", "demo", "--server", url)
	server.signal(os.Interrupt)
	require.Zero(t, server.exit())
}

func TestABuildInterruptedByTheDeathOfItsServerIsTakenUpAgain(t *testing.T) {
	h := newHost(t)
	url, server := h.serveProcess("127.0.0.1:0")
	slow := writeTemplate(t, "name: slow\nprovisioner: process\nstart: 'sleep 1; exec \"$TUNNEL_BIN\" agent'\n")
	h.mustRun("workspaces", "create", "slow", "--template", slow, "--server", url)
	h.mustRun("workspaces", "start", "slow", "--no-wait", "--server", url)
	server.kill()
	_, _ = h.serveProcess(strings.TrimPrefix(url, "http://"))
	t.Cleanup(func() { h.run("workspaces", "delete", "slow", "--server", url) })
	require.Eventually(t, func() bool {
		out, _, _ := h.run("workspaces", "list", "--server", url)
		return strings.Contains(out, "started")
	}, patience, 50*time.Millisecond)
	require.Len(t, h.agents(), 1, "it runs once")
}

func TestAServiceThatIsNotListeningIsOneClearLineAndTheTunnelStays(t *testing.T) {
	h := newHost(t)
	up := h.up("demo", "-p", "0:4000", "-p", "0:3000")
	dead := up.awaitReady()
	for range 3 {
		_, err := http.Get("http://" + dead + "/")
		require.Error(t, err)
	}
	e, next := up.await(0, "a warning", func(e jsonEvent) bool { return e.Event == "warning" })
	require.Contains(t, e.Message, "4000")
	live, _ := up.await(0, "the other forward", func(e jsonEvent) bool { return e.Event == "forward" && e.Remote == "3000" })
	get(t, "http://"+live.Local+"/healthz")
	for _, e := range up.seen()[next:] {
		require.NotEqual(t, "warning", e.Event, "it is said once")
	}
	up.signal(os.Interrupt)
	require.Zero(t, up.exit())
}

func TestAStartupScriptThatFails(t *testing.T) {
	failing := func(t *testing.T) string {
		return writeTemplate(t, "name: failing\nprovisioner: process\nstartup_script: {run: 'echo no such luck; exit 3'}\n")
	}
	t.Run("is a warning, and the tunnel comes up", func(t *testing.T) {
		h := newHost(t)
		_, errOut, code := h.run("up", "failing", "--template", failing(t), "--", "true")
		require.Zero(t, code, errOut)
		require.Contains(t, errOut, "the startup script of failing did not succeed")
		require.Contains(t, errOut, "no such luck")
	})
	t.Run("ends it with --strict-scripts", func(t *testing.T) {
		h := newHost(t)
		_, errOut, code := h.run("up", "failing", "--template", failing(t), "--strict-scripts", "--", "true")
		require.Equal(t, exitNotUp, code, errOut)
		require.Contains(t, errOut, "the workspace's startup script failed")
	})
	t.Run("never ends: --timeout", func(t *testing.T) {
		h := newHost(t)
		endless := writeTemplate(t, "name: endless\nprovisioner: process\nstartup_script: {run: sleep 1000, timeout: 10m}\n")
		_, errOut, code := h.run("up", "endless", "--template", endless, "--timeout", "2s", "--", "true")
		require.Equal(t, exitTimeout, code, errOut)
	})
	t.Run("never ends: --no-wait", func(t *testing.T) {
		h := newHost(t)
		endless := writeTemplate(t, "name: endless\nprovisioner: process\nstartup_script: {run: sleep 1000, timeout: 10m}\n")
		_, errOut, code := h.run("up", "endless", "--template", endless, "--no-wait", "--", "true")
		require.Zero(t, code, errOut)
	})
}

func TestADataDirectoryThatCannotBeUsed(t *testing.T) {
	t.Run("of another format", func(t *testing.T) {
		h := newHost(t)
		h.mustRun("workspaces", "list")
		var changed bool
		require.NoError(t, filepath.WalkDir(h.dataDir, func(path string, d os.DirEntry, err error) error {
			if err == nil && strings.Contains(strings.ToLower(d.Name()), "format") || strings.Contains(strings.ToLower(d.Name()), "version") {
				changed = true
				return os.WriteFile(path, []byte("99\n"), 0o600)
			}
			return err
		}))
		require.True(t, changed)
		_, errOut, code := h.run("workspaces", "list")
		require.Equal(t, exitFailed, code)
		require.Contains(t, errOut, "99")
		require.Contains(t, errOut, "hint: ")
	})
	t.Run("that is a file", func(t *testing.T) {
		h := newHost(t)
		path := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		_, errOut, code := h.run("up", "demo", "--data-dir", path)
		require.Equal(t, exitFailed, code)
		require.Equal(t, 1, strings.Count(errOut, "error:"), errOut)
	})
	t.Run("of a server that is dead", func(t *testing.T) {
		h := newHost(t)
		require.NoError(t, os.WriteFile(filepath.Join(h.dataDir, "server.json"), []byte(`{"url":"http://127.0.0.1:1","pid":1,"token":"x"}`), 0o600))
		h.mustRun("workspaces", "list")
	})
}

func TestAHugeRequestIsRefused(t *testing.T) {
	h := newHost(t)
	url, _ := h.serveProcess("127.0.0.1:0")
	req, err := http.NewRequest(http.MethodPost, url+"/api/v1/workspaces", &blanks{left: 100 << 20})
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+h.token(url))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return // the server hung up before it was all sent: refused
	}
	defer resp.Body.Close()
	require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
}

// blanks is so much white space, as JSON may begin with.
type blanks struct{ left int }

func (z *blanks) Read(b []byte) (int, error) {
	if z.left <= 0 {
		return 0, io.EOF
	}
	n := min(len(b), z.left)
	for i := range b[:n] {
		b[i] = ' '
	}
	z.left -= n
	return n, nil
}
