package fsm

// alt is one alternative of a cell: the first whose guards all hold is taken.
type alt struct {
	when       []*guard  // all must hold; none means otherwise
	to         State     // where to; the cell's own state means stay
	stay       bool      // remain in whatever state this is
	unexpected bool      // a defect of the world: log, count, change nothing
	do         []*action // in order
}

// cell is what a state does with a trigger. One that was never declared is
// nil, and the table's check refuses it.
type cell []alt

// row is what every state does with one trigger; exit ignores everything.
type row struct {
	on Trigger
	in cell // init
	ws cell // waitToStart
	ww cell // waitForWorkspaceStarted
	wa cell // waitForAgent
	et cell // establishTailnet
	tu cell // tailnetUp
	au cell // applicationUp
	sa cell // shutdownApplication
	st cell // shutdownTailnet
}

func (r *row) cell(s State) cell {
	return [numStates]cell{r.in, r.ws, r.ww, r.wa, r.et, r.tu, r.au, r.sa, r.st, noop}[s]
}

// stateDecl declares a state: its superstate, what it means, and what happens
// on every way in and out of it.
type stateDecl struct {
	meaning string
	parent  State
	entry   []*action
	exit    []*action
}

// timed declares a state that may not last for ever.
func timed(parent State, meaning string) stateDecl {
	return stateDecl{meaning, parent, []*action{armDeadline}, []*action{cancelTimers}}
}

// The cells that need no more words.
var (
	noop       = cell{stay()}
	reported   = cell{stay(report)}
	unexpected = cell{{stay: true, unexpected: true, do: []*action{closeHanded}}}
)

// to moves to another state.
func to(s State, do ...*action) alt { return alt{to: s, do: do} }

// stay remains in the state.
func stay(do ...*action) alt { return alt{stay: true, do: do} }

// when puts guards before an alternative.
func when(a alt, gs ...*guard) alt {
	a.when = append(gs[:len(gs):len(gs)], a.when...)
	return a
}

// given puts guards before every alternative of a cell.
func given(c cell, gs ...*guard) cell {
	out := make(cell, len(c))
	for i, a := range c {
		out[i] = when(a, gs...)
	}
	return out
}

// seq tries one cell after the other.
func seq(cs ...cell) cell {
	var out cell
	for _, c := range cs {
		out = append(out, c...)
	}
	return out
}

// leave ends the tunnel from a state in which no connection is held: the
// application, if there is one, is closed first.
func leave(d *action) cell {
	return cell{when(to(ShutdownApplication, d, closeApp), appHeld), to(Exit, d)}
}
