package events

import (
	"errors"
	"io"
	"time"
)

// Event is one thing that the tunneler's state machine is told. The set is
// closed: these types, and no others, can be posted to its loop.
type Event interface{ machineEvent() }

// Shutdown asks for an orderly end: application, then tailnet, then exit.
type Shutdown struct{}

// Abort asks for the end at once. Err says why; nil means that the owner's
// context was cancelled.
type Abort struct{ Err error }

// Timeout says that the tunnel did not come up in the time that its owner
// gave to the whole of it.
type Timeout struct{}

// Deadline says that the current state has lasted longer than it may.
type Deadline struct{}

// RetryDue says that the backoff before the next dial is over.
type RetryDue struct{}

// BuildUpdate is the newest build of the workspace; also a watch message.
type BuildUpdate struct {
	// Number counts the workspace's builds from 1; 0 is a workspace that was
	// never built, reported as stop/succeeded.
	Number int64 `json:"build_number"`
	// Transition is what the build does.
	Transition Transition `json:"transition"`
	// Status is how far it has come.
	Status JobStatus `json:"job_status"`
	// Error says why a failed build failed.
	Error string `json:"error,omitempty"`
}

// AgentUpdate is the state of the agent; also a watch message.
type AgentUpdate struct {
	// ID is made anew by every agent process, so that a restarted agent is
	// another agent.
	ID string `json:"id"`
	// Name is the agent's name within its workspace.
	Name string `json:"name"`
	// Build is the number of the build that the agent belongs to.
	Build int64 `json:"build_number"`
	// Lifecycle is what the agent last reported of itself.
	Lifecycle Lifecycle `json:"lifecycle"`
	// Status is whether the coordinator hears it.
	Status AgentStatus `json:"status"`
}

// Log is one line of a build's or an agent's log; also a watch message.
type Log struct {
	// ID rises within one log; it is the cursor to resume from.
	ID int64 `json:"id"`
	// CreatedAt is the writer's time.
	CreatedAt time.Time `json:"created_at"`
	// Level is the severity.
	Level LogLevel `json:"level"`
	// Source is what wrote the line: provisioner, script, service, agent.
	Source string `json:"source"`
	// Stage is the part of the build or lifecycle that it belongs to.
	Stage string `json:"stage"`
	// Output is the line without its line feed.
	Output string `json:"output"`
}

// BuildLog is a line of the current build's log.
type BuildLog struct{ Log }

// AgentLog is a line of the agent's log.
type AgentLog struct{ Log }

// StartResult answers the machine's request to start the workspace.
type StartResult struct {
	// Build is the build that was accepted, or the one in the way.
	Build int64
	// Conflict is set when another build is under way; it is not an error.
	Conflict bool
	// Err says why the start was refused; nil when accepted or in conflict.
	Err error
}

// TailnetUpdate answers a dial, and later tells of the connection's end.
// Exactly one update with Up false follows each dial: either the dial's
// failure, or the end of the connection that it brought. A connection that is
// reported down is closed already.
type TailnetUpdate struct {
	// Up is true for a connection that has come up, which Conn then holds.
	Up bool
	// Conn is the connection; the machine's owner becomes its owner.
	Conn io.Closer
	// Err says why the dial failed or the connection ended.
	Err error
	// Lived is how long the connection was up; zero for a failed dial.
	Lived time.Duration
}

// AppUpdate answers the start of the application, and later tells of its end.
// Exactly one update with Up false follows each start.
type AppUpdate struct {
	// Up is true for an application that runs, which App then holds.
	Up bool
	// App is the application; the machine's owner becomes its owner.
	App io.Closer
	// Err says why the start failed or the application ended.
	Err error
}

// WatchUpdate is the state of the subscription itself.
type WatchUpdate struct {
	// State is up, retrying or lost.
	State WatchState
	// Err says why it is not up.
	Err error
}

// PathUpdate tells what carries the tailnet now, and how well.
type PathUpdate struct {
	// Kind is what the path is made of.
	Kind PathKind `json:"kind"`
	// Addr is the far end of it: a UDP address or a gateway's name.
	Addr string `json:"addr"`
	// RTT is the smoothed round-trip time; zero when not yet measured.
	RTT time.Duration `json:"rtt_ns"`
	// Degraded is set when pongs are overdue but the path is not yet lost.
	Degraded bool `json:"degraded"`
	// Reason says why the path changed or why it is not a better one.
	Reason string `json:"reason,omitempty"`
}

func (Shutdown) machineEvent()      {}
func (Abort) machineEvent()         {}
func (Timeout) machineEvent()       {}
func (Deadline) machineEvent()      {}
func (RetryDue) machineEvent()      {}
func (BuildUpdate) machineEvent()   {}
func (AgentUpdate) machineEvent()   {}
func (BuildLog) machineEvent()      {}
func (AgentLog) machineEvent()      {}
func (StartResult) machineEvent()   {}
func (TailnetUpdate) machineEvent() {}
func (AppUpdate) machineEvent()     {}
func (WatchUpdate) machineEvent()   {}
func (PathUpdate) machineEvent()    {}

// permanentError marks an error that trying again cannot mend.
type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent marks err as one that trying again cannot mend; nil stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether err, or an error it wraps, was marked by
// Permanent.
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}
