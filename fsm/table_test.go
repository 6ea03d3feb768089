package fsm

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
)

var update = flag.Bool("update", false, "rewrite testdata/table.golden")

// scene is a situation and an event that comes in it.
type scene struct {
	state State
	model model
	rules rules
	ev    string
}

// play lets the event come to a machine that an engine drives.
func (sc *scene) play(t require.TestingT, move engine) (*machine, result) {
	r := sc.rules
	m := newMachine(&r)
	m.state, m.model = sc.state, sc.model
	res, err := m.stepWith(move, readEvent(t, sc.ev))
	require.NoError(t, err)
	return m, res
}

// choice is the alternative that the scene leads to; false when the event is
// old news there.
func (sc *scene) choice(ev events.Event) (place, bool) {
	if _, outcome := classify(&sc.model, ev); outcome != Moved {
		return place{}, false
	}
	r := sc.rules
	m := newMachine(&r)
	m.state, m.model = sc.state, sc.model
	res, err := m.stepWith(walk, ev)
	return place{sc.state, res.trigger, m.taken}, err == nil
}

// plainest are the models of a machine that has come to a state with nothing
// special on the way.
var plainest = [numStates][]string{
	Init:                    {""},
	WaitToStart:             {"build=1:stop/running", "build=1:stop/succeeded app everUp"},
	WaitForWorkspaceStarted: {"build=1:start/running", "build=1:stop/succeeded starting"},
	WaitForAgent:            {"build=1:start/succeeded"},
	EstablishTailnet:        {"build=1:start/succeeded agent=a@1:ready target=a@1 dialing attempt=1"},
	TailnetUp:               {"build=1:start/succeeded agent=a@1:ready target=a@1 conn appStarting attempt=1"},
	ApplicationUp:           {"build=1:start/succeeded agent=a@1:ready target=a@1 conn app everUp attempt=1"},
	ShutdownApplication: {
		"down=shutdown@applicationUp build=1:start/succeeded agent=a@1:ready target=a@1 conn app appClosing everUp attempt=1",
		"build=1:start/succeeded agent=a@1:ready target=a@1 appStarting attempt=1",
		"build=2:stop/succeeded agent=a@1:ready target=a@1 appStarting attempt=1",
	},
	ShutdownTailnet: {
		"down=shutdown@applicationUp build=1:start/succeeded agent=a@1:ready target=a@1 conn everUp attempt=1",
		"build=2:start/running agent=a@1:ready target=a@1 dialing dialCanceled attempt=1",
		"build=2:start/succeeded agent=b@2:start_error target=a@1 conn app everUp attempt=1",
	},
	Exit: {"down=shutdown@applicationUp build=1:start/succeeded agent=a@1:ready everUp"},
}

// eventsOf are the events that amount to a trigger, the plainest first.
var eventsOf = func() (out [numTriggers][]string) {
	builds := func(how string) []string { return []string{"build=1:" + how, "build=2:" + how, "build=3:" + how} }
	agents := func(how string) (out []string) {
		for n := 1; n <= 3; n++ {
			out = append(out, fmt.Sprintf("agent=a@%d:%s", n, how), fmt.Sprintf("agent=b@%d:%s", n, how))
		}
		return out
	}
	out[TriggerShutdown] = []string{"shutdown"}
	out[TriggerAbort] = []string{"abort", "abort,err=owner"}
	out[TriggerTimeout] = []string{"timeout"}
	out[TriggerDeleted] = builds("delete/running")
	out[TriggerBuildFailed] = append(builds("start/failed"), builds("stop/canceled")...)
	out[TriggerStartActive] = append(builds("start/running"), builds("start/pending")...)
	out[TriggerStartSucceeded] = builds("start/succeeded")
	out[TriggerStopActive] = append(builds("stop/running"), builds("stop/canceling")...)
	out[TriggerStopSucceeded] = builds("stop/succeeded")
	out[TriggerStartAccepted] = []string{"accepted=1", "accepted=2"}
	out[TriggerStartRefused] = []string{"refused,err=refused", "conflict=1", "conflict=2"}
	out[TriggerAgentReady] = agents("ready")
	out[TriggerAgentStarting] = agents("starting")
	out[TriggerAgentBadStart] = append(agents("start_error"), agents("start_timeout")...)
	out[TriggerAgentGone] = append(agents("ready/disconnected"), agents("off")...)
	out[TriggerAgentCreated] = append(agents("created"), agents("ready/connecting")...)
	out[TriggerTailnetUp] = []string{"tailnet=up"}
	out[TriggerTailnetDown] = []string{"tailnet=down,err=dial", "tailnet=down,err=permanent", "tailnet=down,lived=1µs"}
	out[TriggerAppUp] = []string{"app=up"}
	out[TriggerAppDown] = []string{"app=down", "app=down,err=app"}
	out[TriggerWatchUp] = []string{"watch=up"}
	out[TriggerWatchRetrying] = []string{"watch=retrying,err=watch"}
	out[TriggerWatchLost] = []string{"watch=lost,err=watch"}
	out[TriggerRetryDue] = []string{"retryDue"}
	out[TriggerDeadline] = []string{"deadline"}
	out[TriggerPathChanged] = []string{"path"}
	out[TriggerLog] = []string{"buildLog", "agentLog"}
	return out
}()

// field is a part of a scene that may be varied, and put back to what it is in
// the plainest scene of the state.
type field struct {
	vary  func(*scene, *rand.Rand)
	reset func(sc, plain *scene)
}

func fields() []field {
	pick := func(r *rand.Rand, words ...string) string { return words[r.IntN(len(words))] }
	fs := []field{
		{func(s *scene, r *rand.Rand) { s.rules.noAutostart = true }, func(s, p *scene) { s.rules.noAutostart = false }},
		{func(s *scene, r *rand.Rand) { s.rules.noWaitForScripts = true }, func(s, p *scene) { s.rules.noWaitForScripts = false }},
		{func(s *scene, r *rand.Rand) { s.rules.strictScripts = true }, func(s, p *scene) { s.rules.strictScripts = false }},
		{func(s *scene, r *rand.Rand) { s.rules.onStop = OnStop(r.IntN(3)) }, func(s, p *scene) { s.rules.onStop = OnStopExit }},
		{func(s *scene, r *rand.Rand) { s.rules.maxAttempts = r.IntN(3) }, func(s, p *scene) { s.rules.maxAttempts = 0 }},
		{
			func(s *scene, r *rand.Rand) {
				s.model.build, _ = readBuild(fmt.Sprintf("%d:%s/%s", 1+r.IntN(3), pick(r, "start", "stop"), pick(r, "running", "succeeded", "failed")))
				s.model.hasBuild = true
			},
			func(s, p *scene) { s.model.build, s.model.hasBuild = p.model.build, p.model.hasBuild },
		},
		{
			func(s *scene, r *rand.Rand) {
				s.model.agent, _ = readAgent(fmt.Sprintf("%s@%d:%s", pick(r, "a", "b"), 1+r.IntN(3), pick(r, "ready", "starting", "start_error")))
			},
			func(s, p *scene) { s.model.agent = p.model.agent },
		},
		{func(s *scene, r *rand.Rand) { s.model.watch = events.WatchLost }, func(s, p *scene) { s.model.watch = p.model.watch }},
		{
			func(s *scene, r *rand.Rand) { s.model.target = target{pick(r, "a", "b"), int64(1 + r.IntN(2))} },
			func(s, p *scene) { s.model.target = p.model.target },
		},
		{func(s *scene, r *rand.Rand) { s.model.attempt = r.IntN(3) }, func(s, p *scene) { s.model.attempt = p.model.attempt }},
		{
			func(s *scene, r *rand.Rand) { s.model.down, s.model.cause, s.model.causeState = false, 0, 0 },
			func(s, p *scene) { s.model.down, s.model.causeState = p.model.down, p.model.causeState },
		},
	}
	for i := range new(model).flags() {
		fs = append(fs, field{
			func(s *scene, r *rand.Rand) { *s.model.flags()[i].on = !*s.model.flags()[i].on },
			func(s, p *scene) { *s.model.flags()[i].on = *p.model.flags()[i].on },
		})
	}
	return fs
}

// find searches for a scene that leads to an alternative, and makes it as plain
// as it can be. The search is the same every time.
func find(t require.TestingT, p place, mustBeLawful bool) (scene, bool) {
	var plains []scene
	for _, text := range plainest[p.state] {
		plains = append(plains, scene{state: p.state, model: readModel(t, text), rules: rules{stableAfter: stable}})
	}
	all, r := fields(), rand.New(rand.NewPCG(uint64(p.state), uint64(p.trigger)))
	evs := make([]events.Event, len(eventsOf[p.trigger]))
	for i, text := range eventsOf[p.trigger] {
		evs[i] = readEvent(t, text)
	}
	// good finds the plainest event that leads there.
	good := func(sc *scene) bool {
		for i, ev := range evs {
			if mustBeLawful && !lawful(sc.state, &sc.model, &sc.rules, ev) {
				continue
			}
			if got, ok := sc.choice(ev); ok && got == p {
				sc.ev = eventsOf[p.trigger][i]
				return true
			}
		}
		return false
	}
	plain := plains[0]
	sc := plain
	for try := 0; !good(&sc); try++ {
		if try == 50_000 {
			return scene{}, false
		}
		plain = plains[try%len(plains)]
		sc = plain
		for range try / len(plains) % 8 {
			all[r.IntN(len(all))].vary(&sc, r)
		}
	}
	for again := true; again; {
		again = false
		for _, f := range all {
			plainer := sc
			f.reset(&plainer, &plain)
			if (plainer.model != sc.model || plainer.rules != sc.rules) && good(&plainer) {
				sc, again = plainer, true
			}
		}
	}
	return sc, true
}

// TestEveryAlternative is proof 2: for every state, trigger and alternative a
// situation that leads to it, and exactly what comes of it, by both engines.
// testdata/table.golden is to be read as a diff; -update writes it anew.
func TestEveryAlternative(t *testing.T) {
	var out strings.Builder
	n := 0
	for s := range State(numStates) {
		for tr := range Trigger(numTriggers) {
			for i := range compiledTable[s][tr] {
				p := place{s, tr, i}
				fmt.Fprintf(&out, "%s\n", describe(t, p))
				n++
			}
		}
	}
	text := fmt.Sprintf("# Every alternative of the table: what it is, a situation that leads to it, what comes of it.\n"+
		"# Written by: go test ./fsm -run TestEveryAlternative -update\n\n%s%d alternatives in %d cells\n", out.String(), n, numStates*numTriggers)
	path := filepath.Join("testdata", "table.golden")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	golden, err := os.ReadFile(path)
	require.NoError(t, err)
	if string(golden) != text {
		require.Equal(t, strings.Split(string(golden), "\n"), strings.Split(text, "\n"), "run go test ./fsm -run TestEveryAlternative -update and read the diff")
	}
}

// describe finds a scene for an alternative, plays it and tells of it.
func describe(t *testing.T, p place) string {
	a := compiledTable[p.state][p.trigger][p.index]
	sc, ok := find(t, p, !a.unexpected && !spare(p))
	if !ok {
		t.Errorf("no situation leads to alternative %d of %s in %s: it can never be taken", p.index, p.trigger, p.state)
		return ""
	}
	if a.unexpected || spare(p) {
		require.False(t, lawful(p.state, &sc.model, &sc.rules, readEvent(t, sc.ev)),
			"alternative %d of %s in %s can be taken in a lawful world: %s %v", p.index, p.trigger, p.state, sc.ev, showModel(sc.model))
	}
	var reads []string
	for _, g := range a.when {
		reads = append(reads, g.name)
	}
	m, res := sc.play(t, walk)
	m2, res2 := sc.play(t, fire)
	require.Equal(t, m.state, m2.state, "the engines disagree on %v", sc)
	require.Equal(t, m.model, m2.model, "the engines disagree on %v", sc)
	require.Equal(t, res, res2, "the engines disagree on %v", sc)
	given := strings.Trim(showRules(sc.rules)+"; "+strings.Join(showModel(sc.model), " "), "; ")
	where := fmt.Sprintf("%s %s", p.state, p.trigger)
	if len(reads) > 0 {
		where += " [" + strings.Join(reads, " & ") + "]"
	}
	if spare(p) {
		where += " (spare)"
	}
	text := fmt.Sprintf("%s\n  given  %s\n  event  %s\n  then   %s", where, cmp.Or(given, "nothing"), sc.ev, res.outcome)
	if m.state != p.state {
		text += " to " + m.state.String()
	}
	if e := showEffects(res.effects); e != "" {
		text += ": " + e
	}
	if c := showChange(sc.model, m.model); c != "" {
		text += "\n  model  " + c
	}
	return text + "\n"
}
