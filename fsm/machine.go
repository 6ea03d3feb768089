package fsm

import (
	"context"
	"fmt"
	"sync"

	"github.com/qmuntal/stateless"

	"github.com/tunneler/tunneler/events"
)

// machine is one instance: a state and a model. It is not safe for concurrent
// use; its owner is one goroutine.
type machine struct {
	state State
	model model
	rules *rules

	// what is being fired
	sit   situation
	cell  cell
	taken int // index into cell, -1 until a guard has been asked
	out   []Effect
	fired *fireContext
}

func newMachine(r *rules) *machine {
	m := &machine{rules: r}
	m.fired = &fireContext{Context: context.Background(), m: m}
	return m
}

// result is what one step did. Effects are valid until the next step.
type result struct {
	from    State
	trigger Trigger
	outcome Outcome
	effects []Effect
}

// begin gives the effects of entering the first state.
func (m *machine) begin() []Effect {
	m.out = m.out[:0]
	m.sit = situation{model: &m.model, rules: m.rules, state: m.state}
	m.run(states[m.state].entry)
	return m.out
}

// engine chooses the alternative of the cell at hand and moves the state.
type engine func(*machine, Trigger) error

// step handles one event with the compiled machine. The error is non-nil only
// for a defect of the table, which its check excludes.
func (m *machine) step(ev events.Event) (result, error) { return m.stepWith(fire, ev) }

func (m *machine) stepWith(move engine, ev events.Event) (result, error) {
	trigger, outcome := classify(&m.model, ev)
	res := result{from: m.state, trigger: trigger, outcome: outcome}
	if outcome != Moved {
		return res, nil
	}
	m.out = m.out[:0]
	m.model.observe(ev)
	m.sit = situation{model: &m.model, rules: m.rules, ev: ev, state: m.state}
	m.cell, m.taken = compiledTable[m.state][trigger], -1
	if err := move(m, trigger); err != nil {
		return res, err
	}
	m.choose() // the only alternative of a cell has no guard to ask
	a := &m.cell[m.taken]
	switch {
	case a.unexpected:
		res.outcome = Unexpected
		m.run(a.do)
	case a.stay:
		res.outcome = Stayed
		if len(a.do) == 0 {
			res.outcome = Ignored
		}
		m.model.settle(ev, m.rules)
		m.run(a.do)
	default:
		m.model.settle(ev, m.rules)
		m.run(states[res.from].exit)
		m.run(a.do)
		m.sit.state = m.state
		m.run(states[m.state].entry)
	}
	res.effects = m.out
	m.sit.ev = nil
	return res, nil
}

func (m *machine) run(do []*action) {
	for _, a := range do {
		a.run(&m.sit, &m.out)
	}
}

// choose finds the first alternative of the cell whose guards all hold; the
// choice stands for the rest of the step.
func (m *machine) choose() int {
	if m.taken >= 0 {
		return m.taken
	}
next:
	for i := range m.cell {
		for _, g := range m.cell[i].when {
			if !g.holds(&m.sit) {
				continue next
			}
		}
		m.taken = i
		return i
	}
	panic(fmt.Sprintf("fsm: no alternative of %s in %s holds", m.sit.ev, m.state)) // check: the last one is unguarded
}

// walk is the engine that needs no library: it follows the table directly. The
// exhaustive exploration uses it, and a test holds it against fire.
func walk(m *machine, _ Trigger) error {
	if a := m.cell[m.choose()]; !a.stay {
		m.state = a.to
	}
	return nil
}

// fire is the engine of the product: one compiled stateless.StateMachine,
// shared by all tunnelers of the process, over the state that each of them
// keeps for itself.
func fire(m *machine, t Trigger) error { return compiled().FireCtx(m.fired, t) }

// fireContext takes the firing machine through the library to its guards.
type fireContext struct {
	context.Context
	m *machine
}

type machineKey struct{}

// Value implements context.Context.
func (c *fireContext) Value(key any) any {
	if key == (machineKey{}) {
		return c.m
	}
	return c.Context.Value(key)
}

func firing(ctx context.Context) *machine { return ctx.Value(machineKey{}).(*machine) }

// compiledTable is the table by state and trigger, with moves to the cell's
// own state turned into stays.
var compiledTable = func() (out [numStates][numTriggers]cell) {
	for i := range table {
		for s := range State(numStates) {
			c := append(cell(nil), table[i].cell(s)...)
			for j := range c {
				c[j].stay = c[j].stay || c[j].to == s
			}
			out[s][table[i].on] = c
		}
	}
	return out
}()

// compiled builds the state machine once. It is fired in immediate mode, from
// the goroutine that owns the machine, and never from a callback. The guards
// of one cell exclude each other by construction: each asks whether its
// alternative is the chosen one.
var compiled = sync.OnceValue(func() *stateless.StateMachine {
	sm := stateless.NewStateMachineWithExternalStorage(
		func(ctx context.Context) (stateless.State, error) { return firing(ctx).state, nil },
		func(ctx context.Context, s stateless.State) error { firing(ctx).state = s.(State); return nil },
		stateless.FiringImmediate)
	for s := range State(numStates) {
		conf := sm.Configure(s)
		if p := states[s].parent; p != noParent {
			conf.SubstateOf(p)
		}
		for t := range Trigger(numTriggers) {
			c := compiledTable[s][t]
			for i := range c {
				var guards []stateless.GuardFunc
				if len(c) > 1 {
					guards = append(guards, func(ctx context.Context, _ ...any) bool { return firing(ctx).choose() == i })
				}
				if c[i].stay {
					conf.Ignore(t, guards...)
				} else {
					conf.Permit(t, c[i].to, guards...)
				}
			}
		}
	}
	return sm
})
