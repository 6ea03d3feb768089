package fsm

import (
	"errors"
	"fmt"
)

// check reports everything that is wrong with a table: it must be total, every
// cell's last alternative must be unguarded and none hidden behind an unguarded
// one, guards and actions must have names, targets must exist, and every state
// must be reachable.
func check(table []row) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	seen := make(map[Trigger]bool)
	var leads [numStates][]State
	for i := range table {
		on := table[i].on
		if int(on) >= numTriggers {
			bad("row %d: unknown trigger %d", i, on)
			continue
		}
		if seen[on] {
			bad("%s: declared twice", on)
		}
		seen[on] = true
		for s := range State(numStates) {
			checkCell(table[i].cell(s), func(format string, args ...any) {
				bad("%s in %s: "+format, append([]any{on, s}, args...)...)
			})
			for _, a := range table[i].cell(s) {
				if !a.stay {
					leads[s] = append(leads[s], a.to)
				}
			}
		}
	}
	for t := range Trigger(numTriggers) {
		if !seen[t] {
			bad("%s: not declared", t)
		}
	}
	reached := map[State]bool{Init: true}
	for next := []State{Init}; len(next) > 0; next = next[1:] {
		if int(next[0]) >= numStates {
			continue // checkCell has said so
		}
		for _, s := range leads[next[0]] {
			if !reached[s] {
				reached[s] = true
				next = append(next, s)
			}
		}
	}
	for s := range State(numStates) {
		if !reached[s] {
			bad("%s: cannot be reached", s)
		}
	}
	return errors.Join(errs...)
}

func checkCell(c cell, bad func(string, ...any)) {
	if len(c) == 0 {
		bad("not declared")
		return
	}
	for i, a := range c {
		last := i == len(c)-1
		switch {
		case last && len(a.when) > 0:
			bad("the last alternative is guarded")
		case !last && len(a.when) == 0:
			bad("alternative %d hides those behind it", i)
		}
		if !a.stay && int(a.to) >= numStates {
			bad("alternative %d leads to %s, which is no state to be in", i, a.to)
		}
		for _, g := range a.when {
			if g == nil || g.name == "" || g.holds == nil {
				bad("alternative %d has a guard without a name or a body", i)
			}
		}
		for _, d := range a.do {
			if d == nil || d.name == "" || d.run == nil {
				bad("alternative %d has an action without a name or a body", i)
			}
		}
	}
}

// A table that does not check must never run: better no program than a wrong one.
func init() {
	if err := check(table); err != nil {
		panic("fsm: the state table is wrong:\n" + err.Error())
	}
}
