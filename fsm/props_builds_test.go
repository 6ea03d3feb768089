package fsm

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tunneler/tunneler/events"
)

// helper is a world in which everything succeeds that can: it keeps what the
// machine has asked for until it is told to answer.
type helper struct {
	*rapid.T
	m        *machine
	newest   events.BuildUpdate
	dial     *Effect
	undialed bool
	conn     *Effect // the dial that brought it
	closing  bool
	app      answer
	retry    bool
	failed   bool // a start has failed
}

func newHelper(t *rapid.T, r rules) *helper {
	h := &helper{T: t, m: newMachine(&r)}
	h.m.begin()
	return h
}

func (h *helper) tell(ev events.Event) {
	if b, ok := ev.(events.BuildUpdate); ok {
		h.newest = b
		h.failed = h.failed || b.Status == events.JobFailed
	}
	if h.m.state == Exit {
		return
	}
	res, err := h.m.step(ev)
	require.NoError(h, err)
	require.NotEqual(h, Unexpected, res.outcome, "%s in %s", res.trigger, res.from)
	for _, e := range res.effects {
		switch e.Kind {
		case EffectDial:
			h.dial, h.undialed = &e, false
		case EffectCancelDial:
			h.undialed = true
		case EffectCloseConn:
			h.closing = true
		case EffectStartApp:
			h.app = inFlight
		case EffectCancelAppStart:
			h.app = canceled
		case EffectCloseApp:
			h.app = over
		case EffectArmRetry:
			h.retry = true
		case EffectCancelTimers:
			h.retry = false
		default:
		}
	}
}

// alive: the agent of this build serves until the workspace is stopped or
// started anew.
func (h *helper) alive(build int64) bool {
	return build == h.newest.Number || h.newest.Transition == events.TransitionStop && h.newest.Status != events.JobSucceeded
}

// answers are those that are due now.
func (h *helper) answers() (out []func()) {
	if h.dial != nil {
		out = append(out, func() {
			d, canceled := h.dial, h.undialed
			h.dial = nil
			if canceled || !h.alive(d.Build) {
				h.tell(events.TailnetUpdate{Err: errDial})
				return
			}
			h.conn, h.closing = d, false
			h.tell(events.TailnetUpdate{Up: true})
		})
	}
	if h.conn != nil && (h.closing || !h.alive(h.conn.Build)) {
		out = append(out, func() { h.conn = nil; h.tell(events.TailnetUpdate{Lived: stable}) })
	}
	if h.app != none && h.app != up {
		out = append(out, func() {
			if h.app == inFlight {
				h.app = up
				h.tell(events.AppUpdate{Up: true})
				return
			}
			h.app = none
			h.tell(events.AppUpdate{})
		})
	}
	if h.retry {
		out = append(out, func() { h.retry = false; h.tell(events.RetryDue{}) })
	}
	return out
}

// settle gives all answers, in any order.
func (h *helper) settle() {
	for range 100 {
		as := h.answers()
		if len(as) == 0 || h.m.state == Exit {
			return
		}
		as[rapid.IntRange(0, len(as)-1).Draw(h.T, "which answers first")]()
	}
	require.Fail(h, "it never comes to rest", "%s %v", h.m.state, showModel(h.m.model))
}

// place is where a machine has come to rest.
func (h *helper) place() map[string]any {
	m := &h.m.model
	p := map[string]any{"state": h.m.state.String(), "down": m.down, "cause": m.cause.String(), "app": m.appHeld, "starting": m.starting}
	if h.failed {
		// Whoever saw the start knows that it was replaced, whoever did not, only
		// that what replaced it has failed.
		delete(p, "cause")
	}
	if m.connHeld {
		p["connected to"] = m.target
	}
	return p
}

// TestDroppingIntermediateBuildUpdatesLeadsToTheSamePlace: two machines live
// through the same history of builds; one is told everything, the other may
// miss any update that is not the last of its build. Effects are answered
// within a build, or later than builds follow each other, but then as late for
// the one as for the other. Stops do not fail here: whether a tunnel outlives
// that depends on how fast its dial was.
func TestDroppingIntermediateBuildUpdatesLeadsToTheSamePlace(t *testing.T) {
	active := []events.JobStatus{events.JobPending, events.JobRunning, events.JobCanceling}
	rapid.Check(t, func(t *rapid.T) {
		r := rapid.SampledFrom(allRules()).Draw(t, "rules")
		r.noAutostart = true // the history is made by others
		r.maxAttempts = 0
		all, some := newHelper(t, r), newHelper(t, r)
		fast := rapid.Bool().Draw(t, "answers are fast")
		builds := rapid.IntRange(1, 6).Draw(t, "builds")
		for n := int64(1); n <= int64(builds); n++ {
			b := events.BuildUpdate{Number: n, Transition: rapid.SampledFrom([]events.Transition{
				events.TransitionStart, events.TransitionStart, events.TransitionStop, events.TransitionDelete}).Draw(t, "transition")}
			for range rapid.IntRange(0, 3).Draw(t, "updates before the last") {
				b.Status = rapid.SampledFrom(active).Draw(t, "status")
				all.tell(b)
				if fast && rapid.Bool().Draw(t, "answered at once") {
					all.settle()
				}
				if rapid.Bool().Draw(t, "told") {
					some.tell(b)
				}
			}
			b.Status = events.JobSucceeded
			if b.Transition == events.TransitionStart && rapid.IntRange(0, 7).Draw(t, "failed") == 7 {
				b.Status = events.JobFailed
			}
			agent := events.AgentUpdate{ID: "a", Build: n, Lifecycle: events.LifecycleReady, Status: events.AgentConnected}
			slow := !fast && b.Status == events.JobSucceeded && rapid.Bool().Draw(t, "slow")
			for _, h := range []*helper{all, some} {
				h.tell(b)
				if b.Transition == events.TransitionStart && b.Status == events.JobSucceeded {
					h.tell(agent)
				}
				if !slow || n == int64(builds) {
					h.settle()
				}
			}
		}
		require.Equal(t, all.place(), some.place(), "told everything: %v, told the least: %v", showModel(all.m.model), showModel(some.m.model))
	})
}
