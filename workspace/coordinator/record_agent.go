package coordinator

import (
	"slices"
	"time"

	"github.com/tunneler/tunneler/events"
)

// sessionRef is one agent's channel to one coordinator.
type sessionRef struct {
	Workspace string
	Build     int64
	Agent     string // its name
	Node      string
	ID        string
}

// hello says that an agent has come. It replaces whatever session the agent
// had, unless the record does not admit it: then the answer is why.
func (r *record) hello(s sessionRef, agentID, version string, now time.Time) *events.SessionReject {
	a := r.agent(s.Agent)
	if a == nil || a.Build != s.Build || r.admits() != s.Build {
		return rejectBuildOver
	}
	if a.ID != agentID {
		process := processRecord{Build: s.Build, AgentID: agentID}
		if slices.Contains(r.Processes, process) {
			return rejectReplaced // it has been, and another has come since
		}
		r.Processes = append(r.Processes, process)
		r.Processes = r.Processes[max(0, len(r.Processes)-maxProcesses):]
		// What the process before said of itself is over.
		a.ID, a.Lifecycle, a.Error = agentID, events.LifecycleCreated, ""
	}
	a.Version, a.Status, a.Since = version, events.AgentConnected, time.Time{}
	a.Node, a.Session = s.Node, s.ID
	a.ConnectedAt, a.ChangedAt = now, now
	return nil
}

// holds finds the agent whose channel s is; nil if it has another by now.
func (r *record) holds(s sessionRef) *agentRecord {
	if a := r.agent(s.Agent); a != nil && a.Build == s.Build && a.Session == s.ID && s.ID != "" {
		return a
	}
	return nil
}

// drop says that the channel s is gone.
func (r *record) drop(s sessionRef, now time.Time) bool {
	a := r.holds(s)
	if a == nil {
		return false
	}
	a.Status, a.ChangedAt = events.AgentDisconnected, now
	a.Node, a.Session = "", ""
	return true
}

// report says what the agent says of itself.
func (r *record) report(s sessionRef, m events.AgentLifecycle, now time.Time) bool {
	a := r.holds(s)
	if a == nil || a.Lifecycle == m.Lifecycle && a.Error == m.Error {
		return false
	}
	a.Lifecycle, a.Error, a.ChangedAt = m.Lifecycle, cut(m.Error, maxErrorText), now
	return true
}

// lost reports whether an agent's channel was held by node, which does not have
// it: alive says which channels there are.
func (r *record) lost(node string, alive func(session string) bool) bool {
	return slices.ContainsFunc(r.Agents, func(a agentRecord) bool { return a.lost(node, alive) })
}

func (a *agentRecord) lost(node string, alive func(session string) bool) bool {
	return a.Node == node && a.Session != "" && !alive(a.Session)
}

// orphan says that the agents whose channels node has lost are waited for.
func (r *record) orphan(node string, alive func(session string) bool, now time.Time) {
	for i := range r.Agents {
		if a := &r.Agents[i]; a.lost(node, alive) {
			a.Status, a.ChangedAt, a.Since = events.AgentConnecting, now, now
			a.Node, a.Session = "", ""
		}
	}
}

// overdue says that an agent that has been waited for since then has not come:
// one that has been there is disconnected, one that never came is in time-out.
func (r *record) overdue(name string, since, now time.Time) bool {
	a := r.agent(name)
	if a == nil || a.Status != events.AgentConnecting || !r.started() || !a.Since.Equal(since) {
		return false
	}
	a.Status, a.ChangedAt, a.Since = events.AgentDisconnected, now, time.Time{}
	if a.ID == "" {
		a.Status = events.AgentTimeout
	}
	return true
}
