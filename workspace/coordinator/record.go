package coordinator

import (
	"time"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/template"
)

// agentName is the name of the agent of a workspace: there is one.
const agentName = "main"

// record is a workspace as the store holds it. All that has to change together
// is in it, so that one compare-and-set changes it and everybody who reads it
// sees a state that was.
type record struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Template  template.Template `json:"template"`
	CreatedAt time.Time         `json:"created_at"`
	CreatedBy string            `json:"created_by"`
	// Node is the coordinator that runs the workspace's builds, because its
	// processes are there; empty before the first build.
	Node string `json:"node,omitempty"`
	// Build is the newest build; older ones are in a bucket of their own.
	Build buildRecord `json:"build"`
	// Agents are those of the newest start build.
	Agents []agentRecord `json:"agents,omitempty"`
	// Admitted is the start build whose agents may speak: the newest one, unless
	// it has failed or was undone. While it is being undone they still may: they
	// have a lot to say about that.
	Admitted int64 `json:"admitted,omitempty"`
	// Processes are the agent processes that have come, oldest first, the last
	// maxProcesses of all builds. Each has a log.
	Processes []processRecord `json:"processes,omitempty"`
	// DeletedAt is when the delete build succeeded; the record then stays as it
	// is, and its name is free.
	DeletedAt time.Time `json:"deleted_at,omitzero"`
}

// buildRecord is a build as the store holds it.
type buildRecord struct {
	api.Build
	// RequestID is what the one who asked for it called the request.
	RequestID string `json:"request_id,omitempty"`
}

// agentRecord is an agent as the store holds it.
type agentRecord struct {
	api.Agent
	// Node and Session say which coordinator holds its channel, and which
	// channel that is.
	Node    string `json:"node,omitempty"`
	Session string `json:"session,omitempty"`
	// Since is when it began to be waited for: it is only while Status is
	// connecting.
	Since time.Time `json:"since,omitzero"`
}

// processRecord is an agent process that has said hello.
type processRecord struct {
	Build   int64  `json:"build"`
	AgentID string `json:"agent_id"`
}

// maxProcesses is how many agent processes a record remembers.
const maxProcesses = 16

// agentProcesses names the logs of the agent processes, oldest first.
func (r *record) agentProcesses() []string {
	names := make([]string, len(r.Processes))
	for i, p := range r.Processes {
		names[i] = agentLogName(r.ID, p.AgentID)
	}
	return names
}

// newRecord is a workspace that was never built.
func newRecord(id, name string, t template.Template, by string, now time.Time) record {
	return record{
		ID: id, Name: name, Template: t, CreatedAt: now, CreatedBy: by,
		Build: buildRecord{Build: api.Build{Transition: events.TransitionStop, Status: events.JobSucceeded}},
	}
}

// api renders the record for the API.
func (r *record) api() api.Workspace {
	w := api.Workspace{
		ID: r.ID, Name: r.Name, Template: r.Template.Name, Ports: r.Template.Ports,
		CreatedAt: r.CreatedAt, Build: r.Build.Build, Agents: make([]api.Agent, 0, len(r.Agents)),
	}
	if w.Ports == nil {
		w.Ports = []template.Port{}
	}
	for _, a := range r.Agents {
		w.Agents = append(w.Agents, a.Agent)
	}
	return w
}

// deleted reports whether the workspace is gone.
func (r *record) deleted() bool { return !r.DeletedAt.IsZero() }

// building reports whether a build is under way.
func (r *record) building() bool { return !r.Build.Status.Final() }

// stopping reports whether a build is under way that ends what runs.
func (r *record) stopping() bool {
	return r.building() && r.Build.Transition != events.TransitionStart
}

// started reports whether the newest build is a start that has succeeded.
func (r *record) started() bool {
	return r.Build.Transition == events.TransitionStart && r.Build.Status == events.JobSucceeded
}

// admits is the number of the start build whose agents may speak; 0 if there is
// none.
func (r *record) admits() int64 { return r.Admitted }

// agent finds an agent by name; nil if there is none.
func (r *record) agent(name string) *agentRecord {
	for i := range r.Agents {
		if r.Agents[i].Name == name {
			return &r.Agents[i]
		}
	}
	return nil
}
