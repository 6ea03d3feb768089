package fsm

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// cells are the cells of a row, to be changed in place; exit has none.
func (r *row) cells() []*cell {
	return []*cell{&r.in, &r.ws, &r.ww, &r.wa, &r.et, &r.tu, &r.au, &r.sa, &r.st}
}

// copyCell gives a table whose one cell may be changed: everything of it is a
// copy, and nothing else is.
func copyCell(row, state int) ([]row, *cell) {
	out := slices.Clone(table)
	c := out[row].cells()[state]
	*c = slices.Clone(*c)
	for j := range *c {
		a := &(*c)[j]
		a.when, a.do = slices.Clone(a.when), slices.Clone(a.do)
	}
	return out, c
}

func TestTheTableChecks(t *testing.T) {
	require.NoError(t, check(table))
	same, _ := copyCell(0, 0)
	require.NoError(t, check(same))
}

// mutants gives every table that differs from ours by one change at one place;
// the check must refuse each.
func mutants(yield func(what string, mutant []row)) {
	for i := range table {
		yield(fmt.Sprintf("without the row %s", table[i].on), slices.Delete(slices.Clone(table), i, i+1))
		yield(fmt.Sprintf("with the row %s twice", table[i].on), append(slices.Clone(table), table[i]))
		unknown := slices.Clone(table)
		unknown[i].on = Trigger(numTriggers)
		yield(fmt.Sprintf("with an unknown trigger for %s", table[i].on), unknown)
		for s := range table[i].cells() {
			at := func(mutate func(*cell)) []row {
				m, c := copyCell(i, s)
				mutate(c)
				return m
			}
			where := fmt.Sprintf("%s in %s", table[i].on, State(s))
			yield("without the cell "+where, at(func(c *cell) { *c = nil }))
			yield("with an empty cell "+where, at(func(c *cell) { *c = cell{} }))
			yield("without the last alternative of "+where, at(func(c *cell) { *c = (*c)[:len(*c)-1] }))
			yield("with an alternative behind the last of "+where, at(func(c *cell) { *c = append(*c, stay()) }))
			yield("with the last alternative guarded of "+where, at(func(c *cell) {
				(*c)[len(*c)-1].when = []*guard{wantUp}
			}))
			for j := range *table[i].cells()[s] {
				mutateAlternative(at, j, fmt.Sprintf("%s, alternative %d", where, j), yield)
			}
		}
	}
}

func mutateAlternative(at func(func(*cell)) []row, j int, where string, yield func(string, []row)) {
	yield("hidden behind an unguarded one: "+where, at(func(c *cell) { *c = slices.Insert(*c, j, stay()) }))
	for _, target := range []State{WaitForWorkspace, Shutdown, noParent} {
		yield(fmt.Sprintf("leading to %s: %s", target, where), at(func(c *cell) { (*c)[j].to, (*c)[j].stay = target, false }))
	}
	for what, g := range map[string]*guard{
		"a nil guard": nil, "a guard without a name": {holds: wantUp.holds}, "a guard without a body": {name: "want up"},
	} {
		yield(what+": "+where, at(func(c *cell) { (*c)[j].when = append((*c)[j].when, g) }))
	}
	for what, d := range map[string]*action{
		"a nil action": nil, "an action without a name": {run: report.run}, "an action without a body": {name: "report"},
	} {
		yield(what+": "+where, at(func(c *cell) { (*c)[j].do = append((*c)[j].do, d) }))
	}
}

func TestEveryMutantOfTheTableIsRefused(t *testing.T) {
	n := 0
	mutants(func(what string, mutant []row) {
		n++
		if check(mutant) == nil {
			t.Errorf("the check accepts a table %s", what)
		}
	})
	// A row has nine cells, and each change applies to all of them.
	require.Greater(t, n, numTriggers*(3+9*(5+10)), "too few mutants to mean anything")
	require.NoError(t, check(table), "a mutation has reached the table itself")
}

func TestAStateThatCannotBeReachedIsRefused(t *testing.T) {
	// cutting off a state leaves no way into it, whatever leads on from it
	cut := func(off ...State) error {
		m := slices.Clone(table)
		for i := range m {
			for s, c := range m[i].cells() {
				*c = slices.Clone(*c)
				for j := range *c {
					if a := &(*c)[j]; !a.stay && slices.Contains(off, a.to) && !slices.Contains(off, State(s)) {
						a.stay = true
					}
				}
			}
		}
		return check(m)
	}
	for s := WaitToStart; s <= Exit; s++ {
		t.Run(s.String(), func(t *testing.T) {
			require.ErrorContains(t, cut(s), s.String()+": cannot be reached")
		})
	}
	t.Run("two states that only lead to each other", func(t *testing.T) {
		err := cut(WaitToStart, WaitForWorkspaceStarted)
		require.ErrorContains(t, err, "waitToStart: cannot be reached")
		require.ErrorContains(t, err, "waitForWorkspaceStarted: cannot be reached")
	})
}

func TestTheCheckNamesThePlace(t *testing.T) {
	m := slices.Clone(table)
	m[slices.IndexFunc(m, func(r row) bool { return r.on == TriggerRetryDue })].wa = nil
	require.EqualError(t, check(m), "retryDue in waitForAgent: not declared")
}

func TestEveryStateIsDeclared(t *testing.T) {
	for s := range State(numStates) {
		d := states[s]
		require.NotEmpty(t, d.meaning, s)
		require.Contains(t, []State{noParent, WaitForWorkspace, Shutdown}, d.parent, s)
		for _, a := range slices.Concat(d.entry, d.exit) {
			require.NotNil(t, a, s)
			require.NotEmpty(t, a.name, s)
			require.NotNil(t, a.run, s)
		}
	}
}

// TestEveryNameMeansOneThing: a name in a graph must not stand for two guards
// or for two actions.
func TestEveryNameMeansOneThing(t *testing.T) {
	guards, actions := make(map[string]*guard), make(map[string]*action)
	for i := range table {
		for _, c := range table[i].cells() {
			for _, a := range *c {
				for _, g := range a.when {
					if known, ok := guards[g.name]; ok && known != g && !slices.Contains(combined, g.name) {
						t.Errorf("two guards are named %q", g.name)
					}
					guards[g.name] = g
				}
				for _, d := range a.do {
					if known, ok := actions[d.name]; ok && known != d && d.name[:4] != "DOWN" {
						t.Errorf("two actions are named %q", d.name)
					}
					actions[d.name] = d
				}
			}
		}
	}
	require.NotContains(t, guards, "")
}

// combined are the names of guards that are made anew wherever they are used.
var combined = []string{either(mayStart, ride).name, either(conflict, startUnderWay).name}

// TestTheGuardsOfACellDiffer: an alternative whose guards include all those of
// an earlier one could never be taken.
func TestTheGuardsOfACellDiffer(t *testing.T) {
	for i := range table {
		for s, c := range table[i].cells() {
			for j, later := range *c {
				for _, earlier := range (*c)[:j] {
					hidden := !slices.ContainsFunc(earlier.when, func(g *guard) bool { return !slices.Contains(later.when, g) })
					require.False(t, hidden, "%s in %s: alternative %d can never be taken", table[i].on, State(s), j)
				}
			}
		}
	}
}
