package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestUpBringsTheDemoUpFromNothingAndTakesItAllDown(t *testing.T) {
	h := newHost(t)
	up := h.up("demo", "-p", "0:3000")
	addr := up.awaitReady()
	require.Contains(t, get(t, "http://"+addr+"/"), "demo")
	require.Len(t, h.agents(), 1)

	up.signal(os.Interrupt)
	require.Zero(t, up.exit())
	h.requireNothingLeft()

	// The whole life of it, in order, as the state machine tells it.
	var states []string
	for _, e := range up.seen() {
		if e.Event == "state" {
			states = append(states, e.To)
		}
	}
	require.Equal(t, []string{
		"waitForWorkspaceStarted", "waitForAgent", "establishTailnet", "tailnetUp", "applicationUp",
		"shutdownApplication", "shutdownTailnet", "exit",
	}, states)
	last := up.seen()[len(up.seen())-1]
	require.Equal(t, "exit", last.Event)
	require.Zero(t, *last.Code)
	var logs []string
	for _, e := range up.seen() {
		if e.Event == "log" {
			logs = append(logs, e.Output)
		}
	}
	require.Contains(t, strings.Join(logs, "\n"), "preparing workspace demo", "the startup script's output is streamed")

	_, err := net.DialTimeout("tcp", addr, time.Second)
	require.Error(t, err, "the forward is closed")
}

func TestACommandRunsOnTheTunnelAndItsExitCodeIsOurs(t *testing.T) {
	h := newHost(t)
	out, errOut, code := h.run("up", "demo", "-p", "0:3000", "--", "sh", "-c", `curl -fsS "http://$TUNNEL_FORWARD_3000/healthz"`)
	require.Zero(t, code, errOut)
	require.Equal(t, "ok", strings.TrimSpace(out), "standard output is the command's alone")

	_, _, code = h.run("up", "demo", "-p", "0:3000", "--", "sh", "-c", "exit 42")
	require.Equal(t, 42, code)
	h.requireNothingLeft()
}

func TestASecondUpUsesTheFirstOnesServer(t *testing.T) {
	h := newHost(t)
	first := h.up("demo", "-p", "0:3000")
	addr := first.awaitReady()
	second := h.up("demo", "-p", "0:3000")
	other := second.awaitReady()
	require.NotEqual(t, addr, other)
	require.Equal(t, get(t, "http://"+addr+"/healthz"), get(t, "http://"+other+"/healthz"))
	require.Len(t, h.agents(), 1, "both tunnels end at the same agent")

	second.signal(os.Interrupt)
	require.Zero(t, second.exit())
	get(t, "http://"+addr+"/healthz")
	first.signal(os.Interrupt)
	require.Zero(t, first.exit())
}

func TestASecondUpBecomesTheServerWhenTheFirstOneEnds(t *testing.T) {
	h := newHost(t)
	first := h.up("demo", "-p", "0:3000")
	first.awaitReady()
	second := h.up("demo", "-p", "0:3000")
	addr := second.awaitReady()
	next := second.awaitState(0, "applicationUp")

	// The first one stops what runs when it ends; the second rides that out.
	first.signal(os.Interrupt)
	require.Zero(t, first.exit())
	next = second.awaitState(next, "waitToStart")
	require.Eventually(t, func() bool {
		_, _, code := h.run("workspaces", "start", "demo")
		return code == 0
	}, patience, 100*time.Millisecond)
	second.awaitState(next, "applicationUp")
	get(t, "http://"+addr+"/healthz")
	second.signal(os.Interrupt)
	require.Zero(t, second.exit())
	h.mustRun("workspaces", "stop", "demo")
}

func TestAnUpWhoseServerIsKilledTheHardWayBecomesTheServer(t *testing.T) {
	h := newHost(t)
	first := h.up("demo", "-p", "0:3000")
	first.awaitReady()
	second := h.up("demo", "-p", "0:3000")
	addr := second.awaitReady()
	first.kill()
	get(t, "http://"+addr+"/healthz")
	require.Eventually(t, func() bool {
		var d discovery
		ok, err := readPrivate(discoveryPath(h.dataDir), &d)
		return err == nil && ok && d.PID == second.cmd.Process.Pid
	}, patience, 50*time.Millisecond)
	for _, e := range second.seen() {
		require.False(t, e.Event == "state" && e.From == "applicationUp", "the tunnel never went down: %+v", e)
	}
	second.signal(os.Interrupt)
	require.Zero(t, second.exit())
	h.requireNothingLeft()
}

func TestAKeptWorkspaceIsAdoptedByTheNextUp(t *testing.T) {
	h := newHost(t)
	up := h.up("demo", "-p", "0:3000", "--keep")
	up.awaitReady()
	agents := h.agents()
	require.Len(t, agents, 1)
	up.signal(os.Interrupt)
	require.Zero(t, up.exit())
	require.Equal(t, agents, h.agents(), "the workspace goes on")

	again := h.up("demo", "-p", "0:3000")
	get(t, "http://"+again.awaitReady()+"/healthz")
	require.Equal(t, agents, h.agents(), "the same agent")
	again.signal(os.Interrupt)
	require.Zero(t, again.exit())

	h.mustRun("workspaces", "stop", "demo")
	require.Empty(t, h.agents())
}

func TestAnUpKilledTheHardWayIsCleanedUpAfterByTheNext(t *testing.T) {
	h := newHost(t)
	up := h.up("demo", "-p", "0:3000")
	up.awaitReady()
	up.kill()
	require.Len(t, h.agents(), 1, "the workspace outlives its server")

	again := h.up("demo", "-p", "0:3000")
	get(t, "http://"+again.awaitReady()+"/healthz")
	require.Len(t, h.agents(), 1)
	again.signal(os.Interrupt)
	require.Zero(t, again.exit())
	h.requireNothingLeft()
}

func TestTwoHundredConnectionsAtOnceCarryWhatTheyShould(t *testing.T) {
	h := newHost(t)
	up := h.up("demo", "-p", "0:3000")
	addr := up.awaitReady()
	var wg sync.WaitGroup
	errs := make(chan error, 200)
	for i := range 200 {
		wg.Go(func() { errs <- echo(addr, fmt.Sprintf("connection %d: %s", i, strings.Repeat("x", i*100))) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	up.signal(os.Interrupt)
	require.Zero(t, up.exit())
}

// echo posts a body over a connection of its own and expects it back.
func echo(addr, body string) error {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post("http://"+addr+"/echo", "text/plain", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && string(got) != body {
		err = fmt.Errorf("sent %d bytes, got %d other ones back", len(body), len(got))
	}
	return err
}

func TestAGibibyteArrivesWhole(t *testing.T) {
	size := int64(1 << 30)
	if raceEnabled {
		size = 128 << 20 // the detector makes the cryptography slow, not different
	}
	h := newHost(t)
	up := h.up("demo", "-p", "0:3000")
	addr := up.awaitReady()
	want := strings.TrimSpace(get(t, fmt.Sprintf("http://%s/download/sha256?size=%d", addr, size)))
	resp, err := http.Get(fmt.Sprintf("http://%s/download?size=%d", addr, size))
	require.NoError(t, err)
	defer resp.Body.Close()
	hash := sha256.New()
	n, err := io.Copy(hash, resp.Body)
	require.NoError(t, err)
	require.Equal(t, size, n)
	require.Equal(t, want, hex.EncodeToString(hash.Sum(nil)))
	up.signal(os.Interrupt)
	require.Zero(t, up.exit())
}

func TestCtrlCEndsEveryStateInOrder(t *testing.T) {
	slow := slowTemplate(t)
	for _, state := range []string{"waitForWorkspaceStarted", "waitForAgent", "establishTailnet", "tailnetUp", "applicationUp"} {
		t.Run(state, func(t *testing.T) {
			h := newHost(t)
			up := h.up("slow", "--template", slow, "-p", "0:3000")
			up.awaitState(0, state)
			up.signal(os.Interrupt)
			require.Zero(t, up.exit())
			h.requireNothingLeft()
		})
	}
	t.Run("before the tunneler runs", func(t *testing.T) {
		h := newHost(t)
		up := h.up("slow", "--template", slow, "-p", "0:3000")
		require.Eventually(t, func() bool {
			entries, err := os.ReadDir(h.dataDir)
			return err == nil && len(entries) > 0
		}, patience, time.Millisecond)
		up.signal(os.Interrupt)
		up.exit()
		h.requireNothingLeft()
	})
	t.Run("terminated instead of interrupted", func(t *testing.T) {
		h := newHost(t)
		up := h.up("slow", "--template", slow, "-p", "0:3000")
		up.awaitState(0, "waitForAgent")
		up.signal(syscall.SIGTERM)
		require.Zero(t, up.exit())
	})
	t.Run("a second Ctrl-C forces", func(t *testing.T) {
		h := newHost(t)
		stubborn := writeTemplate(t, "name: stubborn\nprovisioner: process\nshutdown_script: {run: sleep 30, timeout: 1m}\n")
		up := h.up("stubborn", "--template", stubborn)
		up.awaitState(0, "applicationUp")
		up.signal(os.Interrupt)
		up.awaitState(0, "exit") // the tunnel is down, and the workspace takes its time
		up.signal(os.Interrupt)
		require.Equal(t, exitForced, up.exit())
		h.requireNothingLeft()
	})
}

// slowTemplate has a startup script that lasts until it is interrupted in
// waitForAgent, and lets everything else through in a moment.
func slowTemplate(t *testing.T) string {
	return writeTemplate(t, "name: slow\nprovisioner: process\nstartup_script: {run: sleep 0.3, timeout: 1m}\n")
}

func writeTemplate(t *testing.T, text string) string {
	t.Helper()
	path := t.TempDir() + "/template.yaml"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}
