package fsm

import (
	"slices"

	"github.com/tunneler/tunneler/events"
)

// invariant says what is wrong with a model in a state, or nothing. The golden
// table's situations keep to it, and TestWalksKeepTheInvariant holds that the
// machine does: so an alternative for which no situation can be found is one
// that can never be taken.
func invariant(s State, m *model) string {
	for _, rule := range []struct {
		what  string
		holds bool
	}{
		{"an application that closes is held", !m.appClosing || m.appHeld},
		{"only a dial is cancelled", !m.dialCanceled || m.dialing},
		{"an application starts or is held, not both", !m.appStarting || !m.appHeld},
		{"a tailnet is dialled or held, not both", !m.dialing || !m.connHeld},
		{"what is dialled or held has a target", m.target.agent != "" || !m.dialing && !m.connHeld},
		{"a target was told by the watch", m.target.build <= m.build.Number},
		{"a target means that it was dialled", m.target.agent == "" || m.attempt > 0 || !m.dialing && !m.connHeld},
		{"an application is only closed on the way down", !m.appClosing || m.down},
		{"a cause needs an end", m.down || m.cause == ReasonNone},
		{"an application lives as long as a tunnel that was up", !m.everUp || m.down || m.appHeld},
	} {
		if !rule.holds {
			return rule.what
		}
	}
	return stateInvariant(s, m)
}

func stateInvariant(s State, m *model) string {
	tailnet, app := m.dialing || m.connHeld, m.appStarting || m.appHeld
	start, stop := m.buildActive(events.TransitionStart), m.buildActive(events.TransitionStop)
	started, stopped := m.buildIs(events.TransitionStart, events.JobSucceeded), m.buildIs(events.TransitionStop, events.JobSucceeded)
	failed := m.hasBuild && (m.build.Status == events.JobFailed || m.build.Status == events.JobCanceled)
	waiting := !tailnet && !m.appStarting && !m.down && m.watch != events.WatchLost
	target := m.hasBuild && (m.target.build == m.build.Number && started || m.target.build < m.build.Number && failed)
	var ok bool
	switch s {
	case Init:
		ok = waiting && !app && !m.hasBuild && !m.everUp && !m.starting && m.attempt == 0 && m.target.agent == ""
	case WaitToStart:
		ok = waiting && (stop || stopped && m.everUp)
	case WaitForWorkspaceStarted:
		ok = waiting && (start || stopped || failed)
	case WaitForAgent:
		ok = waiting && started
	case EstablishTailnet:
		ok = m.dialing && !m.appStarting && !m.down && target
	case TailnetUp:
		ok = m.connHeld && m.appStarting && !m.everUp && !m.down && target
	case ApplicationUp:
		ok = m.connHeld && m.appHeld && m.everUp && !m.down &&
			(target || m.target.build < m.build.Number && stop) // it may serve until it is gone
	case ShutdownApplication:
		ok = !m.dialing && (m.appStarting || m.appClosing) && m.hasBuild
	case ShutdownTailnet:
		ok = tailnet && (m.connHeld || m.dialCanceled) && !m.appStarting && !m.appClosing && m.hasBuild
	case Exit:
		ok = m.down
	default: // nothing is ever in a superstate
	}
	if !ok {
		return "this is no model of " + s.String()
	}
	return ""
}

// lawful says that a world which keeps its promises can bring this event to a
// machine in this situation: nothing is answered that was not asked.
func lawful(s State, m *model, r *rules, ev events.Event) bool {
	switch {
	case invariant(s, m) != "":
		return false
	case m.starting && r.noAutostart:
		return false
	case s == WaitForAgent && r.strictScripts && m.agentCurrent() && m.agentBadStart():
		return false // it has left
	case s >= ApplicationUp && s != Exit && !m.down && r.onStop == OnStopExit && m.build.Transition == events.TransitionStop && m.build.Status != events.JobFailed:
		return false // it wants to go down
	}
	switch ev := ev.(type) {
	case events.StartResult:
		return m.starting
	case events.TailnetUpdate:
		return m.dialing || m.connHeld && !ev.Up
	case events.AppUpdate:
		return m.appStarting || m.appHeld && !ev.Up
	default:
		return true
	}
}

// place is an alternative of the table.
type place struct {
	state   State
	trigger Trigger
	index   int
}

// spare are the alternatives that no lawful world can bring a machine to. They
// are what a cell has in common with others: RESUME goes by the snapshot
// wherever it is used, though a tunnel that holds a connection has followed
// most snapshots at once; and a build that we are connected to is final, so that
// nothing new is ever told of it.
func spare(p place) bool {
	return slices.Contains(map[State]map[Trigger][]int{
		Init:                    {TriggerStartAccepted: {0}, TriggerStartRefused: {0}},
		WaitForWorkspaceStarted: {TriggerStartAccepted: {3}, TriggerStartRefused: {3}},
		EstablishTailnet:        {TriggerStartActive: {0}, TriggerStartSucceeded: {0}, TriggerTailnetDown: {6, 7, 8, 9, 10}},
		TailnetUp:               {TriggerStartActive: {0}, TriggerStartSucceeded: {0}, TriggerTimeout: {0}},
		ApplicationUp:           {TriggerStartActive: {0}, TriggerStartSucceeded: {0}, TriggerTailnetDown: {1, 4, 6, 8, 9, 10, 12}},
		ShutdownApplication:     {TriggerAppUp: {10}, TriggerAppDown: {9}},
	}[p.state][p.trigger], p.index)
}
