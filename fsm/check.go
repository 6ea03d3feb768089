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
	reached := map[State]bool{Init: true}
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
			checkCell(table[i].cell(s), fmt.Sprintf("%s in %s", on, s), bad)
			for _, a := range table[i].cell(s) {
				if !a.stay {
					reached[a.to] = true
				}
			}
		}
	}
	for t := range Trigger(numTriggers) {
		if !seen[t] {
			bad("%s: not declared", t)
		}
	}
	for s := range State(numStates) {
		if !reached[s] {
			bad("%s: cannot be reached", s)
		}
	}
	return errors.Join(errs...)
}

func checkCell(c cell, where string, bad func(string, ...any)) {
	if len(c) == 0 {
		bad("%s: not declared", where)
		return
	}
	for i, a := range c {
		last := i == len(c)-1
		switch {
		case last && len(a.when) > 0:
			bad("%s: the last alternative is guarded", where)
		case !last && len(a.when) == 0:
			bad("%s: alternative %d hides those behind it", where, i)
		}
		if !a.stay && int(a.to) >= numStates {
			bad("%s: alternative %d leads to %s, which is no state to be in", where, i, a.to)
		}
		for _, g := range a.when {
			if g == nil || g.name == "" || g.holds == nil {
				bad("%s: alternative %d has a guard without a name or a body", where, i)
			}
		}
		for _, d := range a.do {
			if d == nil || d.name == "" || d.run == nil {
				bad("%s: alternative %d has an action without a name or a body", where, i)
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
