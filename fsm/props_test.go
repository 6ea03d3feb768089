package fsm

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tunneler/tunneler/events"
)

// walker takes a random way through the world of the exhaustive exploration,
// which is as large as its bounds allow: the exploration visits every
// configuration of few things, these walks visit some of many.
type walker struct {
	*rapid.T
	rand *rand.Rand
	m    *machine
	w    world
	// what has happened on the way
	conns, connsDown, apps, appsDown int
}

// checkWalks holds a property for many walks: rapid's own number of them, for
// each choice of what to do on a stop.
func checkWalks(t *testing.T, property func(*walker)) {
	for _, o := range []OnStop{OnStopExit, OnStopWait, OnStopRestart} {
		t.Run(o.String(), rapid.MakeCheck(func(t *rapid.T) { property(newWalker(t, o)) }))
	}
}

func newWalker(t *rapid.T, o OnStop) *walker {
	seed := rapid.Uint64().Draw(t, "seed")
	random := rand.New(rand.NewPCG(seed, 0))
	all, worlds := allRules(), startingWorlds()
	r := all[random.IntN(len(all))]
	r.onStop = o
	w := &walker{T: t, rand: random, m: newMachine(&r), w: worlds[random.IntN(len(worlds))]}
	require.Empty(t, w.w.apply(w.m.begin()))
	return w
}

// ends are the happenings that end most walks.
var ends = map[string]bool{
	"abort": true, "shutdown": true, "overall time-out": true, "watch is lost": true, "deadline": true,
	"coordinator refuses the start": true, "start refused": true, "application does not start": true,
	"dial fails for good": true, "connection is down for good": true, "application dies": true,
}

func (h *happening) ends() bool {
	b, ok := h.ev.(events.BuildUpdate)
	return ends[h.name] || ok && (b.Transition == events.TransitionDelete || b.Status == events.JobFailed)
}

// next draws something that can happen, and only seldom what ends most walks.
// The way is a function of the seed, so that rapid can shorten it.
func (w *walker) next() happening {
	var often, seldom []happening
	for _, h := range w.w.happenings(nil) {
		if h.ends() {
			seldom = append(seldom, h)
		} else {
			often = append(often, h)
		}
	}
	if len(often) == 0 || w.rand.IntN(30) == 0 {
		often = seldom
	}
	return often[w.rand.IntN(len(often))]
}

// take lets one thing happen, and fails for whatever the world forbids.
func (w *walker) take(h happening, move engine) result {
	w.w = h.w
	if h.ev == nil {
		return result{from: w.m.state}
	}
	res, err := w.m.stepWith(move, h.ev)
	require.NoError(w, err)
	require.NotEqual(w, Unexpected, res.outcome, "%s in %s", res.trigger, res.from)
	switch ev := h.ev.(type) {
	case events.TailnetUpdate:
		if ev.Up {
			w.conns++
		} else if h.name != "dial fails" && h.name != "dial fails for good" {
			w.connsDown++
		}
	case events.AppUpdate:
		if ev.Up {
			w.apps++
		} else if h.name == "application is down" {
			w.appsDown++
		}
	}
	require.Empty(w, w.w.apply(res.effects), "%s in %s", h.name, res.from)
	return res
}

// walk goes on for a while, or until the machine has ended.
func (w *walker) walk(move engine, each func(happening, result)) {
	for range rapid.SampledFrom([]int{80, 40, 20, 10, 5}).Draw(w.T, "steps") {
		if w.m.state == Exit {
			return
		}
		h := w.next()
		res := w.take(h, move)
		if each != nil {
			each(h, res)
		}
	}
}

func TestWalksKeepTheInvariant(t *testing.T) {
	seen := make(map[State]bool)
	checkWalks(t, func(w *walker) {
		w.walk(walk, func(h happening, _ result) {
			require.Empty(w.T, invariant(w.m.state, &w.m.model), "%s after %s: %v", w.m.state, h.name, showModel(w.m.model))
			c := config{w.w, save(w.m)}
			require.Empty(w.T, c.violation(w.m))
			seen[w.m.state] = true
		})
	})
	require.Len(t, seen, numStates, "the walks do not reach every state")
}

// once holds that what was brought up is closed at most once.
type once struct {
	conn, app bool // and is being closed
}

func (o *once) see(t *rapid.T, ev events.Event, effects []Effect) {
	switch ev := ev.(type) {
	case events.TailnetUpdate:
		o.conn = o.conn && !ev.Up
	case events.AppUpdate:
		o.app = o.app && !ev.Up
	}
	for _, e := range effects {
		switch e.Kind {
		case EffectCloseConn:
			require.False(t, o.conn, "a connection is closed twice")
			o.conn = true
		case EffectCloseApp:
			require.False(t, o.app, "an application is closed twice")
			o.app = true
		default:
		}
	}
}

// TestAShutdownReachesExit: from wherever a walk has led, once what is pending
// has answered, in whatever order; and everything is closed exactly once.
// That a second dial, application or StartWorkspace is never asked for is what
// world.apply holds all along.
func TestAShutdownReachesExit(t *testing.T) {
	checkWalks(t, func(w *walker) {
		var o once
		w.walk(fire, func(h happening, r result) { o.see(w.T, h.ev, r.effects) })
		if w.w.aborted {
			return
		}
		take := func(h happening) { o.see(w.T, h.ev, w.take(h, fire).effects) }
		if w.m.state != Exit {
			asked := w.w
			asked.asked = true
			take(happening{"shutdown", asked, events.Shutdown{}})
		}
		for range 12 {
			if w.m.state == Exit {
				break
			}
			require.True(w.T, w.m.model.down)
			var answers []happening
			w.w.answers(func(name string, ev events.Event, change func(*world)) {
				n := w.w
				change(&n)
				answers = append(answers, happening{name, n, ev})
			})
			require.NotEmpty(w.T, answers, "%s waits for nothing", w.m.state)
			take(rapid.SampledFrom(answers).Draw(w.T, "answer"))
		}
		require.Equal(w.T, Exit, w.m.state)
		require.Equal(w.T, w.conns, w.connsDown, "connections that came up, and that have gone down")
		require.Equal(w.T, w.apps, w.appsDown, "applications that came up, and that have gone down")
	})
}

func TestAnAbortExitsAtOnce(t *testing.T) {
	checkWalks(t, func(w *walker) {
		w.walk(fire, nil)
		if w.m.state == Exit {
			return
		}
		res, err := w.m.step(events.Abort{})
		require.NoError(w.T, err)
		require.Equal(w.T, Exit, w.m.state)
		require.Contains(w.T, showEffects(res.effects), "abort finish")
	})
}

func TestReplayingTheSnapshotChangesNothing(t *testing.T) {
	checkWalks(t, func(w *walker) {
		w.walk(fire, nil)
		state, before := w.m.state, w.m.model
		snapshot := []events.Event{before.agent}
		if before.hasBuild {
			snapshot = []events.Event{before.build, before.agent}
		}
		for _, ev := range snapshot {
			res, err := w.m.step(ev)
			require.NoError(w.T, err)
			require.Contains(w.T, []Outcome{Replayed, Stale}, res.outcome)
			require.Empty(w.T, res.effects)
			require.Equal(w.T, state, w.m.state)
			require.Equal(w.T, before, w.m.model)
		}
	})
}

// anyEvent is an event that need not be lawful.
func anyEvent() *rapid.Generator[string] {
	var all []string
	for _, list := range eventsOf {
		all = append(all, list...)
	}
	return rapid.SampledFrom(all)
}

func TestAnUnexpectedEventChangesNothingAndIsClosed(t *testing.T) {
	checkWalks(t, func(w *walker) {
		w.walk(fire, nil)
		ev := readEvent(w.T, rapid.SampledFrom([]string{"tailnet=up", "tailnet=down,err=dial", "app=up", "app=down,err=app"}).Draw(w.T, "event"))
		state, before := w.m.state, w.m.model
		res, err := w.m.step(ev)
		require.NoError(w.T, err)
		if res.outcome != Unexpected {
			return
		}
		require.Equal(w.T, state, w.m.state)
		require.Equal(w.T, before, w.m.model)
		if up := showEvent(ev) == "tailnet=up" || showEvent(ev) == "app=up"; up {
			require.Equal(w.T, "closeHanded", showEffects(res.effects))
		} else {
			require.Empty(w.T, res.effects)
		}
	})
}

// TestTheEnginesAgree: fire, which the product uses, and walk, which the
// exploration uses, do the same with any events, lawful or not.
func TestTheEnginesAgree(t *testing.T) {
	checkWalks(t, func(w *walker) {
		other := newMachine(w.m.rules)
		require.Equal(w.T, showEffects(w.m.begin()), showEffects(other.begin()))
		agree := func(ev events.Event, a result) {
			b, err := other.stepWith(walk, ev)
			require.NoError(w.T, err)
			require.Equal(w.T, a, b)
			require.Equal(w.T, w.m.state, other.state)
			require.Equal(w.T, w.m.model, other.model)
		}
		w.walk(fire, func(h happening, res result) {
			if h.ev != nil {
				agree(h.ev, res)
			}
		})
		for _, text := range rapid.SliceOfN(anyEvent(), 0, 30).Draw(w.T, "events") {
			ev := readEvent(w.T, text)
			res, err := w.m.step(ev)
			require.NoError(w.T, err)
			agree(ev, res)
		}
	})
}

// TestStatusesThatTheExplorationTakesForOne: pending, running and canceling
// are one status to the machine, and so are failed and canceled; and a change
// from one to the other of them leads nowhere.
func TestStatusesThatTheExplorationTakesForOne(t *testing.T) {
	active := rapid.SampledFrom([]events.JobStatus{events.JobPending, events.JobRunning, events.JobCanceling, events.JobUnknown})
	failed := rapid.SampledFrom([]events.JobStatus{events.JobFailed, events.JobCanceled})
	place := func(m *machine) (State, compact) {
		c := save(m)
		if c.build.status != events.JobSucceeded {
			c.build.status = map[bool]events.JobStatus{true: events.JobFailed, false: events.JobRunning}[c.build.status.Final()]
		}
		return m.state, c
	}
	matters := func(effects []Effect) (out []EffectKind) {
		for _, e := range effects {
			if e.Kind != EffectReport {
				out = append(out, e.Kind)
			}
		}
		return out
	}
	checkWalks(t, func(w *walker) {
		other := newMachine(w.m.rules)
		other.begin()
		tell := func(ev events.Event) []EffectKind {
			res, err := other.step(ev)
			require.NoError(w.T, err)
			return matters(res.effects)
		}
		w.walk(walk, func(h happening, res result) {
			if h.ev == nil {
				return
			}
			var did []EffectKind
			b, ok := h.ev.(events.BuildUpdate)
			switch {
			case ok && !b.Status.Final():
				for range rapid.IntRange(1, 3).Draw(w.T, "updates") {
					b.Status = active.Draw(w.T, "active")
					did = append(did, tell(b)...)
				}
			case ok && b.Status == events.JobFailed:
				b.Status = failed.Draw(w.T, "failed")
				did = tell(b)
			default:
				did = tell(h.ev)
			}
			require.Equal(w.T, matters(res.effects), did)
			wantState, want := place(w.m)
			state, got := place(other)
			require.Equal(w.T, wantState, state)
			require.Equal(w.T, want, got)
		})
	})
}
