package coordinator

import (
	"fmt"
	"time"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
)

// The functions below are all that can happen to a record: pure, and true or
// nil when the record was changed.

// requestBuild makes the next build. created is false when there is nothing to
// make, because the request was made before or the workspace is what it asks
// for; the newest build then is the answer. The error is an *api.Error.
func (r *record) requestBuild(in api.CreateBuild, by, node string, now time.Time) (created bool, err error) {
	b := r.Build
	switch {
	case in.RequestID != "" && b.RequestID == in.RequestID && b.Transition == in.Transition:
		return false, nil
	case r.deleted():
		return false, workspaceGone(r.Name)
	case r.building():
		build := b.Build
		return false, &api.Error{
			Code:    api.CodeBuildActive,
			Message: fmt.Sprintf("build %d (%s) of workspace %s is %s", b.Number, b.Transition, r.Name, b.Status),
			Hint:    "wait until it has ended",
			Build:   &build,
		}
	case b.Transition == in.Transition && b.Status == events.JobSucceeded:
		return false, nil
	}
	if r.Node == "" {
		r.Node = node
	}
	r.Build = buildRecord{RequestID: in.RequestID, Build: api.Build{
		Number: b.Number + 1, Transition: in.Transition, Status: events.JobPending, Initiator: by, CreatedAt: now,
	}}
	if in.Transition == events.TransitionStart {
		r.Admitted = r.Build.Number
		r.Agents = []agentRecord{{Since: now, Agent: api.Agent{
			Name: agentName, Build: r.Build.Number, ChangedAt: now,
			Lifecycle: events.LifecycleCreated, Status: events.AgentConnecting,
		}}}
	}
	return true, nil
}

// beginBuild says that the build with this number runs.
func (r *record) beginBuild(number int64, now time.Time) bool {
	if r.Build.Number != number || r.Build.Status != events.JobPending {
		return false
	}
	r.Build.Status, r.Build.StartedAt = events.JobRunning, now
	return true
}

// finishBuild ends the build with this number: cause nil means success.
func (r *record) finishBuild(number int64, cause error, now time.Time) bool {
	b := &r.Build
	if b.Number != number || b.Status.Final() {
		return false
	}
	b.Status, b.EndedAt = events.JobSucceeded, now
	if cause != nil {
		b.Status, b.Error = events.JobFailed, cause.Error()
	}
	switch {
	case b.Transition == events.TransitionStart && cause != nil:
		r.endAgents(events.AgentTimeout, now)
	case b.Transition == events.TransitionStart:
		for i := range r.Agents {
			// From here on the agents of provisioner none are waited for.
			if r.Agents[i].Status == events.AgentConnecting {
				r.Agents[i].Since = now
			}
		}
	case cause == nil:
		r.endAgents(events.AgentDisconnected, now)
		if b.Transition == events.TransitionDelete {
			r.DeletedAt = now
		}
	}
	return true
}

// endAgents takes leave of the agents, and lets none in any more: those that never came get the given
// status, the others are disconnected.
func (r *record) endAgents(absent events.AgentStatus, now time.Time) {
	r.Admitted = 0
	for i := range r.Agents {
		a := &r.Agents[i]
		status := events.AgentDisconnected
		if a.ID == "" {
			status = absent
		}
		if a.Status != status {
			a.Status, a.ChangedAt = status, now
		}
		a.Session, a.Node, a.Since = "", "", time.Time{}
	}
}
