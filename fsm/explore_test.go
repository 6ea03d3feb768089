package fsm

import (
	"errors"
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
)

const stable = 1000

var exploreFull = flag.Bool("explore.full", false, "explore from a workspace that was never built as well")

var (
	errRefused     = errors.New("refused")
	errDial        = errors.New("no route")
	errDialForGood = events.Permanent(errors.New("wrong key"))
	errApp         = errors.New("port taken")
)

// allRules is every combination of the flags that guards read.
func allRules() []rules {
	var out []rules
	for i := range 8 {
		for _, o := range []OnStop{OnStopExit, OnStopWait, OnStopRestart} {
			out = append(out, rules{
				noAutostart: i&1 != 0, noWaitForScripts: i&2 != 0, strictScripts: i&4 != 0,
				onStop: o, maxAttempts: 2, stableAfter: stable,
			})
		}
	}
	return out
}

// TestExploreEveryConfiguration is proof 5: breadth-first over every reachable
// configuration of machine and world. On a violation it prints the shortest
// path to it.
//
// With -explore.full it also starts from a workspace that was never built,
// which triples the time. Under the race detector, which has nothing to find
// in a walk of one goroutine and slows it tenfold, it keeps to the rules that
// the command line has by default.
func TestExploreEveryConfiguration(t *testing.T) {
	type job struct {
		r rules
		w world
	}
	worlds, all := startingWorlds(), allRules()
	if *exploreFull {
		worlds = append(worlds, world{build: buildWorld{0, events.TransitionStop, events.JobSucceeded}})
	}
	if raceEnabled {
		all = []rules{{onStop: OnStopWait, maxAttempts: 2, stableAfter: stable}}
	}
	var jobs []job
	for _, r := range all {
		for _, w := range worlds {
			jobs = append(jobs, job{r, w})
		}
	}
	var total, steps atomic.Int64
	var wg sync.WaitGroup
	next := make(chan job)
	failed := make(chan string, len(jobs))
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for j := range next {
				x := newExplorer(j.r)
				if path := x.run(j.w); path != "" {
					failed <- fmt.Sprintf("rules %+v, world %+v:\n%s", j.r, j.w, path)
				}
				total.Add(int64(len(x.nodes)))
				steps.Add(x.steps)
			}
		})
	}
	for _, j := range jobs {
		next <- j
	}
	close(next)
	wg.Wait()
	close(failed)
	shortest := ""
	for f := range failed {
		if shortest == "" || strings.Count(f, "\n") < strings.Count(shortest, "\n") {
			shortest = f
		}
	}
	require.Empty(t, shortest)
	fmt.Printf("fsm: explored %d configurations by %d steps, %d combinations of rules in %d starting worlds\n",
		total.Load(), steps.Load(), len(all), len(worlds))
}

type explorer struct {
	m      *machine
	nodes  []config
	parent []int32
	via    []string
	seen   map[config]struct{}
	steps  int64
}

func newExplorer(r rules) *explorer {
	return &explorer{m: newMachine(&r), seen: make(map[config]struct{}, 1<<16)}
}

// run explores from one world; the result is the shortest path to a violation,
// or nothing.
func (x *explorer) run(w world) string {
	if bad := w.apply(x.m.begin()); bad != "" {
		return bad
	}
	x.add(config{w, save(x.m)}, -1, "")
	var hs []happening
	for i := 0; i < len(x.nodes); i++ {
		c := x.nodes[i]
		hs = c.w.happenings(hs[:0])
		for _, h := range hs {
			n, bad := x.take(c, h)
			if bad != "" {
				return x.path(int32(i)) + h.name + "\n=> " + bad
			}
			x.add(n, int32(i), h.name)
		}
	}
	return ""
}

func (x *explorer) add(c config, parent int32, via string) {
	if c.m.state == Exit {
		return // take has checked it, and nothing follows
	}
	c = c.canonical()
	if _, ok := x.seen[c]; ok {
		return
	}
	x.seen[c] = struct{}{}
	x.nodes, x.parent, x.via = append(x.nodes, c), append(x.parent, parent), append(x.via, via)
}

func (x *explorer) path(i int32) string {
	if i < 0 {
		return ""
	}
	n := &x.nodes[i]
	return fmt.Sprintf("%s%-20s -> %s, build %+v, agent %+v\n", x.path(x.parent[i]), x.via[i], n.m.state, n.w.build, n.w.agent)
}

// take lets one thing happen; bad says what is wrong with the outcome.
func (x *explorer) take(c config, h happening) (n config, bad string) {
	n = config{h.w, c.m}
	if h.ev == nil {
		return n, ""
	}
	x.steps++
	c.m.load(x.m)
	res, err := x.m.stepWith(walk, h.ev)
	if err != nil {
		return n, err.Error()
	}
	if res.outcome == Unexpected {
		return n, fmt.Sprintf("unexpected %s in %s", res.trigger, res.from)
	}
	if bad = n.w.apply(res.effects); bad != "" {
		return n, bad
	}
	n.m = save(x.m)
	if bad = n.violation(x.m); bad != "" {
		bad += fmt.Sprintf(" (state %s, world %+v)", x.m.state, n.w)
	}
	return n, bad
}

// apply performs the machine's effects on the world.
func (w *world) apply(effects []Effect) string {
	for _, e := range effects {
		switch e.Kind {
		case EffectStartWorkspace:
			if w.start != none {
				return "a second StartWorkspace while one is in flight"
			}
			w.start = inFlight
		case EffectDial:
			if w.dial != none || w.conn != none {
				return "a dial beside a dial or a connection"
			}
			w.dial = inFlight
		case EffectCancelDial:
			if w.dial != inFlight {
				return "cancelDial without a dial to cancel"
			}
			w.dial = canceled
		case EffectStartApp:
			if w.app != none {
				return "a second application"
			}
			w.app = inFlight
		case EffectCancelAppStart:
			if w.app != inFlight {
				return "cancelAppStart without a start to cancel"
			}
			w.app = canceled
		case EffectCloseApp:
			if w.app != up && w.app != over {
				return "closeApp without an application"
			}
			w.app = over
		case EffectCloseConn:
			if w.conn != up && w.conn != over {
				return "closeConn without a connection"
			}
			w.conn = over
		case EffectAttach:
			if w.app != up && w.app != over {
				return "attach without an application"
			}
			if w.conn != up {
				return "attach of no connection"
			}
		case EffectDetach:
			if w.app != up && w.app != over {
				return "detach without an application"
			}
		case EffectCloseHanded:
			return "closed what was handed over"
		case EffectArmRetry:
			w.retry = true
		case EffectArmDeadline:
			w.deadline = true
		case EffectCancelTimers:
			w.retry, w.deadline = false, false
		case EffectAbort:
			w.aborted = true
		default: // EffectReport and EffectFinish do nothing to the world
		}
	}
	return ""
}

// violation names what must never be true of a configuration: above all a
// state that waits for something nobody will send.
func (c *config) violation(m *machine) string {
	s := &situation{model: &m.model, rules: m.rules, state: m.state}
	w := &c.w
	started, stopped := startedNow.holds(s), stoppedNow.holds(s)
	switch m.state {
	case Exit:
		if !w.aborted && (w.dial != none || w.conn != none || w.app != none) {
			return "exit with something open"
		}
		return ""
	case WaitToStart:
		if stopped && canStart.holds(s) {
			return "waits beside a stopped workspace that it may start"
		}
		if stopped && (!ride.holds(s) || !everUp.holds(s)) {
			return "waits for somebody to start a stopped workspace, and must not"
		}
		if !stopped && !stopUnderWay.holds(s) {
			return "waits for a stop that is not under way"
		}
	case WaitForWorkspaceStarted:
		if w.start == none && !startUnderWay.holds(s) && !c.coming() {
			return "waits for a start that is not under way"
		}
	case WaitForAgent:
		if !started {
			return "waits for the agent of a workspace that is not started"
		}
		if agentReady.holds(s) && !w.retry {
			return "waits beside a ready agent without a timer"
		}
		if scriptFailed.holds(s) {
			return "waits for an agent whose script has failed"
		}
	case EstablishTailnet:
		if w.dial == none {
			return "dials nothing"
		}
	case TailnetUp:
		if w.app == none || w.conn == none {
			return "starts nothing"
		}
	case ApplicationUp:
		if w.app == none || w.conn == none {
			return "is up with nothing"
		}
	case ShutdownApplication:
		if w.app == none || w.app == up {
			return "waits for an application that will not report"
		}
	case ShutdownTailnet:
		if w.dial == none && w.conn != over {
			return "waits for a tailnet that will not report"
		}
	default: // init waits for the watch
	}
	if m.state != ApplicationUp && m.state != TailnetUp && m.state != EstablishTailnet && w.watchLost &&
		m.state != ShutdownApplication && m.state != ShutdownTailnet {
		return "waits for a watch that is lost"
	}
	if m.model.down && m.state != ShutdownApplication && m.state != ShutdownTailnet {
		return "wants to go down and does not"
	}
	return ""
}

// coming: the watch will yet tell of a build that the machine has not seen.
func (c *config) coming() bool { return !c.w.watchLost && c.w.toldBuild != c.w.build }

// TestExploreFindsHoles takes out one alternative after the other of those
// that only a certain order of events needs, and expects to be told.
func TestExploreFindsHoles(t *testing.T) {
	for name, hole := range map[string]struct {
		on    Trigger
		in    State
		guard *guard // every alternative that it guards is taken out
	}{
		"a start that is overtaken by a stop":         {TriggerStartAccepted, WaitForWorkspaceStarted, overtaken},
		"a conflict that is over before it is known":  {TriggerStartRefused, WaitForWorkspaceStarted, overtaken},
		"a watch that is lost under a tunnel":         {TriggerTailnetDown, EstablishTailnet, watchGone},
		"an agent that was ready before its build":    {TriggerStartSucceeded, WaitForWorkspaceStarted, agentReady},
		"a script that failed before its build ended": {TriggerStartSucceeded, WaitForWorkspaceStarted, scriptFailed},
		"an application that dies in a reconnect":     {TriggerAppDown, EstablishTailnet, appHeld},
		"a connection left behind by a dead start":    {TriggerAppDown, ShutdownApplication, connHeld},
	} {
		t.Run(name, func(t *testing.T) {
			whole := compiledTable[hole.in][hole.on]
			defer func() { compiledTable[hole.in][hole.on] = whole }()
			var rest cell
			for _, a := range whole {
				if !slices.Contains(a.when, hole.guard) {
					rest = append(rest, a)
				}
			}
			require.Less(t, len(rest), len(whole), "no alternative has this guard")
			compiledTable[hole.in][hole.on] = rest
			for _, strictly := range []bool{false, true} {
				for _, w := range startingWorlds() {
					if newExplorer(rules{onStop: OnStopWait, strictScripts: strictly, maxAttempts: 2, stableAfter: stable}).run(w) != "" {
						return
					}
				}
			}
			require.Fail(t, "the exploration did not notice")
		})
	}
}
