package agent

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// pidOf reads a process id off the end of a line.
func pidOf(line string) string { return line[strings.LastIndexByte(line, ' ')+1:] }

func kill(t *testing.T, pid string) {
	t.Helper()
	var n int
	for _, digit := range pid {
		n = 10*n + int(digit-'0')
	}
	p, err := os.FindProcess(n)
	require.NoError(t, err)
	require.NoError(t, p.Signal(syscall.SIGKILL))
}

func TestAServiceThatIsKilledIsStartedAgainWithoutItsRemains(t *testing.T) {
	co := newCoordinator(t, `services: [{name: web, command: "sleep 1000 & echo child $!; echo me $$; wait"}]`)
	a := co.start(nil)
	child := pidOf(co.untilSaid("line web: child"))
	me := pidOf(co.untilSaid("line web: me"))
	require.True(t, alive(child))
	kill(t, me)
	require.Contains(t, co.untilSaid("line agent: service web"), "service web: ended by signal killed; starting it again in 200ms")
	require.False(t, alive(child), "it would be in the way of the next")
	again := pidOf(co.untilSaidTimes("line web: me", 2))
	require.NotEqual(t, me, again)
	require.NoError(t, a.stop())
	require.False(t, alive(again))
}

func TestAServiceIsStartedAgainAsItsTemplateSays(t *testing.T) {
	for name, c := range map[string]struct {
		restart, command string
		runs             int
		last             string
	}{
		"always, after success":     {"always", "echo run", 3, "line agent: service web ended; starting it again in 400ms"},
		"always, after failure":     {"always", "echo run; exit 1", 3, "line agent: service web: exit status 1; starting it again in 400ms"},
		"on failure, after failure": {"on-failure", "echo run; exit 1", 3, "line agent: service web: exit status 1; starting it again in 400ms"},
		"on failure, after success": {"on-failure", "echo run", 1, "line agent: service web ended"},
		"never":                     {"never", "echo run; exit 1", 1, "line agent: service web: exit status 1"},
	} {
		t.Run(name, func(t *testing.T) {
			co := newCoordinator(t, "services: [{name: web, restart: "+c.restart+", command: '"+c.command+"'}]")
			a := co.start(nil)
			co.untilSaidTimes("line web: run", c.runs)
			co.untilSaid(c.last)
			require.NoError(t, a.stop())
			runs := strings.Count(strings.Join(co.all(), "\n"), "line web: run")
			require.GreaterOrEqual(t, runs, c.runs)
			if c.runs == 1 {
				require.Equal(t, 1, runs)
			}
		})
	}
}

func TestAServiceThatDoesNotListenIsKilledWhenItsGraceIsOver(t *testing.T) {
	co := newCoordinator(t, `services: [{name: web, command: "trap '' TERM; echo up; while :; do sleep 0.01; done"}]`)
	a := co.start(func(c *Config) { c.Grace = 100e6 })
	co.untilSaid("line web: up")
	require.NoError(t, a.stop())
	require.Equal(t, []string{"created", "starting", "ready", "shutting_down", "off"}, co.life())
}

func TestTheWholeGroupHasItsGrace(t *testing.T) {
	// The leader ends at once, its child takes a moment to put things in order.
	co := newCoordinator(t, `
services:
  - name: web
    command: |
      (trap 'sleep 0.2; echo child ends; exit 0' TERM; echo child up; while :; do sleep 0.01; done) &
      wait
`)
	a := co.start(nil)
	co.untilSaid("line web: child up")
	require.NoError(t, a.stop())
	require.Contains(t, co.all(), "line web: child ends")
}

func TestNothingRunsAwayFromTheAgent(t *testing.T) {
	// A daemon in a session of its own, one whose parent is gone, and one that
	// has cleared its environment.
	co := newCoordinator(t, `
startup_script:
  run: |
    setsid sleep 1000 & echo pid $!
    (sh -c 'sleep 1000 & echo pid $!' &)
    (env -i setsid sh -c 'echo pid $$; exec sleep 1000' &)
services:
  - {name: web, command: "setsid sh -c 'trap \"\" TERM; echo pid $$; while :; do sleep 0.01; done' & wait"}
`)
	a := co.start(nil)
	co.untilSaidTimes(": pid ", 4)
	var pids []string
	for _, word := range co.all() {
		if strings.Contains(word, ": pid ") {
			pids = append(pids, pidOf(word))
		}
	}
	require.Len(t, pids, 4)
	for _, pid := range pids {
		require.True(t, alive(pid), "%s ended by itself", pid)
	}
	require.NoError(t, a.stop())
	for _, pid := range pids {
		require.False(t, alive(pid), "%s is left", pid)
	}
}

func TestScriptsAndServicesKnowTheirWorkspaceAndNotTheAgentsToken(t *testing.T) {
	co := newCoordinator(t, `
directory: app
env: {GREETING: hello, WHO: template}
startup_script: {run: "echo dir $(pwd); mkdir -p sub; env"}
services: [{name: web, directory: sub, env: {WHO: service}, restart: never, command: "echo dir $(pwd); env"}]
`)
	a := co.start(func(c *Config) {
		c.Environ = append(c.Environ,
			"TUNNEL_AGENT_TOKEN_FILE="+c.TokenFile, "TUNNEL_SERVER_FILE=/x", "TUNNEL_TOKEN=another", "HARMLESS=secret-token", "KEPT=yes",
			"TUNNELER_OWNER=/var/lib/tunneler", "TUNNEL_BIN=/bin/tunnel", "WHO=environment")
	})
	co.untilSaid("line agent: service web ended")
	require.NoError(t, a.stop())
	dir, err := filepath.EvalSymlinks(a.cfg.Dir)
	require.NoError(t, err)
	all := strings.Join(co.all(), "\n")
	for _, line := range []string{
		"startup_script: dir " + dir + "/app", "web: dir " + dir + "/app/sub",
		"startup_script: GREETING=hello", "startup_script: WHO=template", "web: GREETING=hello", "web: WHO=service",
		"web: TUNNELER_WORKSPACE_ID=id1", "web: TUNNELER_WORKSPACE_NAME=demo", "web: TUNNELER_WORKSPACE_BUILD=3",
		"web: TUNNELER_WORKSPACE_DIR=" + a.cfg.Dir, "web: TUNNELER_OWNER=/var/lib/tunneler", "web: TUNNEL_BIN=/bin/tunnel", "web: KEPT=yes",
	} {
		require.Contains(t, all, "line "+line+"\n")
	}
	for _, secret := range []string{"secret-token", "TUNNEL_AGENT_", "TUNNEL_SERVER_FILE", "TUNNEL_TOKEN"} {
		require.NotContains(t, all, secret)
	}
}

func TestAMissingDirectoryOfAServiceIsSaid(t *testing.T) {
	co := newCoordinator(t, `services: [{name: web, directory: not/there, restart: never, command: "echo up"}]`)
	a := co.start(nil)
	require.Contains(t, co.untilSaid("line agent: service web"), "no such file or directory")
	require.NoError(t, a.stop())
}
