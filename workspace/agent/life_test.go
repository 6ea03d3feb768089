package agent

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
)

// waitFor is a shell loop that waits for a file, which the test makes when it
// likes; nothing passes because time does.
const waitFor = `while [ ! -e %s ]; do sleep 0.01; done`

// touch makes a file that a script waits for.
func (r *running) touch(name string) {
	r.t.Helper()
	require.NoError(r.t, os.WriteFile(r.cfg.Dir+"/"+name, nil, 0o600))
}

func TestEveryStateOfLifeIsReportedAsItIs(t *testing.T) {
	for name, c := range map[string]struct {
		definition string
		// up are the states until the agent has come to rest, in groups between
		// which the test lets the script go on; down are those of its end.
		up   [][]string
		down []string
	}{
		"nothing to run": {
			"", [][]string{{"created", "starting", "ready"}}, []string{"shutting_down", "off"},
		},
		"a startup script that ends well": {
			"startup_script: {run: 'echo hello; " + fmt.Sprintf(waitFor, "go1") + "'}",
			[][]string{{"created", "starting"}, {"ready"}}, []string{"shutting_down", "off"},
		},
		"a startup script that fails": {
			"startup_script: {run: 'exit 3'}",
			[][]string{{"created", "starting", "start_error: the startup script failed: exit status 3"}}, []string{"shutting_down", "off"},
		},
		"a startup script that is killed": {
			"startup_script: {run: 'kill -9 $$'}",
			[][]string{{"created", "starting", "start_error: the startup script failed: ended by signal killed"}}, []string{"shutting_down", "off"},
		},
		"a startup script that is late and ends well": {
			"startup_script: {timeout: 50ms, run: '" + fmt.Sprintf(waitFor, "go1") + "'}",
			[][]string{{"created", "starting", "start_timeout: the startup script still runs after 50ms"}, {"ready"}}, []string{"shutting_down", "off"},
		},
		"a startup script that is late and fails": {
			"startup_script: {timeout: 50ms, run: '" + fmt.Sprintf(waitFor, "go1") + "; exit 1'}",
			[][]string{
				{"created", "starting", "start_timeout: the startup script still runs after 50ms"},
				{"start_error: the startup script failed: exit status 1"},
			}, []string{"shutting_down", "off"},
		},
		"a startup script that never ends and does not listen": {
			"startup_script: {timeout: 50ms, run: 'trap \"\" TERM; while :; do sleep 0.01; done'}",
			[][]string{{"created", "starting", "start_timeout: the startup script still runs after 50ms"}}, []string{"shutting_down", "off"},
		},
		"a script that nobody waits for": {
			"startup_script: {blocking: false, run: '" + fmt.Sprintf(waitFor, "go1") + "; exit 7'}",
			[][]string{{"created", "starting", "ready"}, {"start_error: the startup script failed: exit status 7"}}, []string{"shutting_down", "off"},
		},
		"a service that never answers": {
			"services: [{name: web, command: 'sleep 1000', ready: {port: 1, timeout: 50ms}}]",
			[][]string{{"created", "starting", "start_timeout: service web does not answer on port 1 after 50ms"}}, []string{"shutting_down", "off"},
		},
		"a service that ends before it answers": {
			"services: [{name: web, command: 'exit 4', restart: never, ready: {port: 1}}]",
			[][]string{{"created", "starting", "start_error: service web: exit status 4"}}, []string{"shutting_down", "off"},
		},
		"a service that is no program": {
			"services: [{name: web, command: [/no/such/program], restart: never, ready: {port: 1}}]",
			[][]string{{"created", "starting", "start_error: service web: cannot start: fork/exec /no/such/program: no such file or directory"}},
			[]string{"shutting_down", "off"},
		},
		"a service that nobody waits for": {
			"services: [{name: web, command: 'exit 4', restart: never}]",
			[][]string{{"created", "starting", "ready"}}, []string{"shutting_down", "off"},
		},
		"a script that fails, and then a service that answers nobody": {
			"startup_script: {run: 'exit 3'}\nservices: [{name: web, command: 'sleep 1000', ready: {port: 1, timeout: 50ms}}]",
			[][]string{{"created", "starting", "start_error: the startup script failed: exit status 3"}}, []string{"shutting_down", "off"},
		},
		"a shutdown script that ends well": {
			"shutdown_script: {run: 'echo bye'}",
			[][]string{{"created", "starting", "ready"}}, []string{"shutting_down", "off"},
		},
		"a shutdown script that fails": {
			"shutdown_script: {run: 'exit 5'}",
			[][]string{{"created", "starting", "ready"}},
			[]string{"shutting_down", "shutdown_error: the shutdown script failed: exit status 5", "off: the shutdown script failed: exit status 5"},
		},
		"a shutdown script that never ends": {
			"shutdown_script: {timeout: 50ms, run: 'sleep 1000'}",
			[][]string{{"created", "starting", "ready"}},
			[]string{"shutting_down", "shutdown_timeout: the shutdown script did not end within 50ms", "off: the shutdown script did not end within 50ms"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			co := newCoordinator(t, c.definition)
			a := co.start(nil)
			var want []string
			for i, group := range c.up {
				if i > 0 {
					a.touch(fmt.Sprint("go", i))
				}
				want = append(want, group...)
				co.untilSaid("life " + group[len(group)-1])
				require.Equal(t, want, co.life())
			}
			require.NoError(t, a.stop())
			require.Equal(t, append(want, c.down...), co.life())
		})
	}
}

func TestWhatGoesWrongIsInTheLogAsWell(t *testing.T) {
	co := newCoordinator(t, `
startup_script: {run: "echo on stdout; echo on stderr >&2; exit 3"}
services: [{name: web, command: "echo from the service; exit 1", restart: never}]
shutdown_script: {run: "echo bye; exit 5"}
`)
	a := co.start(nil)
	co.untilSaid("line agent: service web: exit status 1")
	require.NoError(t, a.stop())
	for _, line := range []string{
		"line startup_script: on stdout", "line startup_script: on stderr", "line agent: the startup script failed: exit status 3",
		"line web: from the service", "line shutdown_script: bye", "line agent: the shutdown script failed: exit status 5",
	} {
		require.Contains(t, co.all(), line)
	}
}

func TestEveryLineOfTheStartupScriptComesBeforeReady(t *testing.T) {
	// The last lines have no time of their own, and something in the background
	// holds the script's output for good.
	co := newCoordinator(t, `startup_script: {run: "sleep 1000 & i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo line $i; done; printf 'no end'"}`)
	began := time.Now()
	a := co.start(nil)
	co.untilSaid("life ready")
	require.Less(t, time.Since(began), patience, "nobody waits for what stays in the background")
	require.NoError(t, a.stop())
	var lines []string
	for _, word := range co.all()[:slices.Index(co.all(), "life ready")] {
		if line, ok := strings.CutPrefix(word, "line startup_script: "); ok {
			lines = append(lines, line)
		}
	}
	require.Len(t, lines, 5001)
	for i, line := range lines[:5000] {
		require.Equal(t, fmt.Sprint("line ", i+1), line)
	}
	require.Equal(t, "no end", lines[5000])
}

func TestNoLineIsLostOrDoubledWhenTheConnectionBreaks(t *testing.T) {
	co := newCoordinator(t, `startup_script: {run: "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; [ $((i % 100)) = 0 ] && sleep 0.02; done; true"}`)
	a := co.start(nil)
	for i := range 5 {
		co.untilSaid(fmt.Sprintf("line startup_script: line %d", 1+500*i))
		co.connection()
		co.hangUp()
	}
	co.untilSaid("life ready")
	require.NoError(t, a.stop())
	want := 0
	for _, word := range co.all() {
		if line, ok := strings.CutPrefix(word, "line startup_script: "); ok {
			want++
			require.Equal(t, fmt.Sprint("line ", want), line)
		}
	}
	require.Equal(t, 3000, want)
	require.Equal(t, []string{"created", "starting", "ready", "shutting_down", "off"}, co.life())
	require.Greater(t, co.connects(), 5)
}

func TestTheShutdownScriptStillHasItsServices(t *testing.T) {
	co := newCoordinator(t, `
services:
  - name: web
    command: "trap 'echo the service ends; exit 0' TERM; echo up; while :; do sleep 0.01; done"
shutdown_script: {run: "sleep 0.1; echo the script ends"}
`)
	a := co.start(nil)
	co.untilSaid("line web: up")
	require.NoError(t, a.stop())
	script, service := slices.Index(co.all(), "line shutdown_script: the script ends"), slices.Index(co.all(), "line web: the service ends")
	require.GreaterOrEqual(t, script, 0)
	require.Greater(t, service, script)
	require.Equal(t, "life off", co.all()[len(co.all())-1])
}

func TestServicesWaitForABlockingScriptButNotForEver(t *testing.T) {
	co := newCoordinator(t, `
startup_script: {timeout: 100ms, run: "echo script; `+fmt.Sprintf(waitFor, "go1")+`; echo script done"}
services: [{name: web, command: "echo service; sleep 1000"}]
`)
	a := co.start(nil)
	co.untilSaid("line web: service")
	require.Equal(t, []string{"created", "starting", "start_timeout: the startup script still runs after 100ms"}, co.life())
	a.touch("go1")
	co.untilSaid("life ready")
	require.Less(t, slices.Index(co.all(), "line startup_script: script done"), slices.Index(co.all(), "life ready"))
	require.NoError(t, a.stop())
}

func TestAStartIsTheSumOfItsSteps(t *testing.T) {
	errA, errB := fmt.Errorf("a"), fmt.Errorf("b")
	type set struct {
		step     int
		progress progress
		err      error
	}
	for name, c := range map[string]struct {
		awaited []bool
		sets    []set
		want    string
	}{
		"nothing is awaited":                        {[]bool{false}, nil, "starting ready"},
		"the last that was awaited comes":           {[]bool{true, true}, []set{{0, done, nil}, {1, done, nil}}, "starting ready"},
		"a failure stays":                           {[]bool{true, true}, []set{{0, failed, errA}, {1, done, nil}}, "starting start_error(a)"},
		"of two failures the first step's is shown": {[]bool{true, true}, []set{{1, failed, errB}, {0, failed, errA}}, "starting start_error(b) start_error(a)"},
		"what is late comes":                        {[]bool{true}, []set{{0, late, errA}, {0, done, nil}}, "starting start_timeout(a) ready"},
		"one late is enough":                        {[]bool{true, true}, []set{{1, late, errB}, {0, done, nil}}, "starting start_timeout(b)"},
		"two late come one after the other": {
			[]bool{true, true}, []set{{0, late, errA}, {1, late, errB}, {0, done, nil}, {1, done, nil}}, "starting start_timeout(a) start_timeout(b) ready",
		},
		"what has come does not fail later": {[]bool{true}, []set{{0, done, nil}, {0, failed, errA}}, "starting ready"},
		"what nobody awaits may fail":       {[]bool{false}, []set{{0, failed, errA}}, "starting ready start_error(a)"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			s := &startup{
				report: func(l events.Lifecycle, err error) {
					word := l.String()
					if err != nil {
						word += "(" + err.Error() + ")"
					}
					got = append(got, word)
				},
				say: func(error) {},
			}
			for _, awaited := range c.awaited {
				s.add(awaited)
			}
			s.begin()
			for _, set := range c.sets {
				s.set(set.step, set.progress, set.err)
			}
			require.Equal(t, c.want, strings.Join(got, " "))
		})
	}
}
