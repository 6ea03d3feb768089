package api

import (
	"time"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/template"
)

// Workspace is a named environment that can be started, stopped and deleted.
type Workspace struct {
	// ID never changes and is never used again.
	ID string `json:"id"`
	// Name is unique among the workspaces that are not deleted.
	Name string `json:"name"`
	// Template is the name of the template that it was made from; the
	// workspace keeps the template as it was then.
	Template string `json:"template"`
	// Ports are the template's ports.
	Ports []template.Port `json:"ports"`
	// CreatedAt is the coordinator's time.
	CreatedAt time.Time `json:"created_at"`
	// Build is the newest build; number 0, stop/succeeded, before the first.
	Build Build `json:"latest_build"`
	// Agents are the agents of the newest start build.
	Agents []Agent `json:"agents"`
}

// Build is one attempt to move a workspace.
type Build struct {
	Number     int64             `json:"number"`
	Transition events.Transition `json:"transition"`
	Status     events.JobStatus  `json:"status"`
	// Error says why a failed build failed.
	Error string `json:"error,omitempty"`
	// Initiator is the subject of the token that asked for it.
	Initiator string    `json:"initiator,omitempty"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
}

// Agent is the process inside a workspace that tunnels end at.
type Agent struct {
	// ID is made anew by every agent process; empty before the first hello.
	ID        string             `json:"id"`
	Name      string             `json:"name"`
	Build     int64              `json:"build_number"`
	Lifecycle events.Lifecycle   `json:"lifecycle"`
	Status    events.AgentStatus `json:"status"`
	// Error says what went wrong in an error or time-out lifecycle.
	Error       string    `json:"error,omitempty"`
	Version     string    `json:"version,omitempty"`
	ConnectedAt time.Time `json:"connected_at,omitzero"`
	ChangedAt   time.Time `json:"changed_at,omitzero"`
}

// Update renders the build as the watch and the state machine see it.
func (b Build) Update() events.BuildUpdate {
	return events.BuildUpdate{Number: b.Number, Transition: b.Transition, Status: b.Status, Error: b.Error}
}

// Update renders the agent as the watch and the state machine see it.
func (a Agent) Update() events.AgentUpdate {
	return events.AgentUpdate{ID: a.ID, Name: a.Name, Build: a.Build, Lifecycle: a.Lifecycle, Status: a.Status}
}

// CreateWorkspace asks for a new workspace. Exactly one of Template and
// Definition is set.
type CreateWorkspace struct {
	Name string `json:"name"`
	// Template names one of the coordinator's templates.
	Template string `json:"template,omitempty"`
	// Definition is the text of a template of the caller's own (YAML).
	Definition string `json:"definition,omitempty"`
}

// CreateBuild asks for a build.
type CreateBuild struct {
	Transition events.Transition `json:"transition"`
	// RequestID, chosen by the caller and at most MaxRequestID bytes, makes a
	// repeated request the same request: while the build that it made is the
	// newest, the answer is that build instead of another one.
	RequestID string `json:"request_id,omitempty"`
}

// MaxRequestID is the longest CreateBuild.RequestID in bytes.
const MaxRequestID = 64

// WorkspaceList are the workspaces that are not deleted, by name.
type WorkspaceList struct {
	Workspaces []Workspace `json:"workspaces"`
}

// BuildList are builds of one workspace, newest first.
type BuildList struct {
	Builds []Build `json:"builds"`
	// More is set when there are older ones: ask with before=NUMBER of the last.
	More bool `json:"more"`
}

// LogPage is a part of a log, in order of ID.
type LogPage struct {
	Logs []events.Log `json:"logs"`
	// More is set when there are later ones: ask with after=ID of the last.
	More bool `json:"more"`
}

// Connect asks for a tunnel session to a workspace's agent.
type Connect struct {
	// Agent names the agent; empty when the workspace has only one.
	Agent string `json:"agent,omitempty"`
	// KeyHash is the SHA-256 of the caller's public key for this session, in hex.
	KeyHash string `json:"key_hash"`
	// Candidates are UDP addresses where the caller may be reached.
	Candidates []string `json:"candidates,omitempty"`
}

// Session is a tunnel session that the agent has agreed to.
type Session struct {
	// ID is the TLS server name that the tailnet is dialled with.
	ID string `json:"id"`
	// AgentID is the agent process that expects the caller.
	AgentID string `json:"agent_id"`
	// KeyHash is the SHA-256 of the agent's public key for this session.
	KeyHash string `json:"key_hash"`
	// Candidates are UDP addresses where the agent may be reached, best first.
	Candidates []string `json:"candidates"`
	// Expires is when the agent stops waiting for the caller.
	Expires time.Time `json:"expires"`
}

// Manifest is what an agent needs to know of its workspace.
type Manifest struct {
	WorkspaceID   string            `json:"workspace_id"`
	WorkspaceName string            `json:"workspace_name"`
	Build         int64             `json:"build_number"`
	AgentName     string            `json:"agent_name"`
	Template      template.Template `json:"template"`
}

// Token is a bearer token with its life.
type Token struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// Whoami is what the coordinator reads in the caller's token.
type Whoami struct {
	Subject string    `json:"subject"`
	Scope   Scope     `json:"scope"`
	Expires time.Time `json:"expires"`
}

// Scope is what a token may be used for.
type Scope string

// The scopes. An owner may do everything; a viewer may look; an agent speaks
// for one build's agent and nothing else.
const (
	ScopeOwner  Scope = "owner"
	ScopeViewer Scope = "viewer"
	ScopeAgent  Scope = "agent"
)

// TemplateInfo is one of the coordinator's templates.
type TemplateInfo struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Provisioner string `json:"provisioner"`
	// Builtin is set for the templates that come with the program.
	Builtin bool `json:"builtin"`
	// Definition is the template's text (YAML); only when one template is asked for.
	Definition string `json:"definition,omitempty"`
}

// TemplateList are the coordinator's templates, by name.
type TemplateList struct {
	Templates []TemplateInfo `json:"templates"`
}

// CheckTemplate asks whether a template is correct.
type CheckTemplate struct {
	// File is the name that an error calls the template by.
	File string `json:"file,omitempty"`
	// Definition is the template's text (YAML).
	Definition string `json:"definition"`
}

// TemplateCheck is the answer: either Template or Problem is set.
type TemplateCheck struct {
	Template *TemplateInfo    `json:"template,omitempty"`
	Problem  *TemplateProblem `json:"problem,omitempty"`
}

// TemplateProblem says where a template is wrong and what was expected there.
type TemplateProblem struct {
	File string `json:"file"`
	// Line and Column count from 1.
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Message string `json:"message"`
}

// CreateAgentToken asks for a token with which somebody else's agent joins a
// workspace of provisioner none.
type CreateAgentToken struct {
	// Agent names the agent; empty when the workspace has only one.
	Agent string `json:"agent,omitempty"`
}

// Error is the body of every answer that is not a success.
type Error struct {
	// Code is stable and for programs: see the Code constants.
	Code Code `json:"code"`
	// Message is one sentence for a person.
	Message string `json:"message"`
	// Hint says what to do, if there is something to do.
	Hint string `json:"hint,omitempty"`
	// Nearest are existing names that resemble one that was not found.
	Nearest []string `json:"nearest,omitempty"`
	// Build is the build in the way, with CodeBuildActive.
	Build *Build `json:"build,omitempty"`
	// Problem is where a template that was sent is wrong.
	Problem *TemplateProblem `json:"problem,omitempty"`
	// Status is the HTTP status that the error came with. It is not part of
	// the body.
	Status int `json:"-"`
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Code is the machine-readable cause of an Error.
type Code string

// The codes, with the HTTP status each comes with.
const (
	CodeBadRequest   Code = "bad_request"        // 400
	CodeUnauthorized Code = "unauthorized"       // 401
	CodeForbidden    Code = "forbidden"          // 403
	CodeNotFound     Code = "not_found"          // 404
	CodeMethod       Code = "method_not_allowed" // 405
	CodeExists       Code = "exists"             // 409
	CodeBuildActive  Code = "build_active"       // 409
	CodeConflict     Code = "conflict"           // 409: the state does not allow it
	CodeTooLarge     Code = "too_large"          // 413
	CodeTooMany      Code = "too_many"           // 429
	CodeInternal     Code = "internal"           // 500
	CodeUnavailable  Code = "unavailable"        // 503
	CodeAgentTimeout Code = "agent_timeout"      // 504
)
