// Package provision brings the agents of workspaces to life and takes them down again, and leaves nothing behind.
//
// There are two provisioners. [Process] runs each workspace as a process group of this machine, which outlives the
// server: it is found and adopted, or reaped, when the server comes back. [None] is for workspaces whose agent is
// started by someone else.
//
// It must not know of builds' states, the store, tokens or the agent's protocol: whether an agent says hello in time,
// what is done when it does not, and that a workspace has one start or stop at a time, is the coordinator's business.
// The package is safe all the same when it has not.
package provision

import (
	"context"
	"time"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/template"
)

// A Provisioner starts and stops the agents of workspaces. Its methods may be called at the same time, also for one
// workspace.
type Provisioner interface {
	// Start runs a workspace's agent and returns once its process runs, which says nothing yet of the agent: see
	// Instance. When ctx is done before it returns, what it started is stopped again and the error is ctx's; after
	// it has returned, ctx means nothing. If the same build runs already, Start returns that instance, whose lines
	// go to out from then on; if another build runs, the error is a *BusyError.
	//
	// out is called by one goroutine at a time, with the provisioner's own lines and the process's output, until the
	// instance has ended or its workspace is stopped. It may be nil. It must not call the provisioner, and a slow
	// one delays nobody but itself and the end of Stop.
	Start(ctx context.Context, spec Spec, out func(Line)) (*Instance, error)
	// Stop ends everything that belongs to a workspace, whether or not this provisioner knows of it, and returns
	// when nothing of it is left. It asks politely first and waits for as long as the shutdown script may take; a
	// done ctx ends that patience, not the work. Lines go to out, if it is not nil, and no longer to Start's.
	// Stopping what does not run is no error.
	Stop(ctx context.Context, workspaceID string, out func(Line)) error
	// Recover is called once, before any Start, by a server that comes up. It adopts what an earlier server has left
	// running, if resolve knows it, and ends the rest. A done ctx makes it stop early, with an error and nothing
	// harmed; it may be called again then.
	Recover(ctx context.Context, resolve Resolve) (Recovered, error)
	// Close lets go of all instances without stopping them and returns when no goroutine of the provisioner is left.
	// Their Exited channels stay open.
	Close() error
}

// A Spec is what Start runs.
type Spec struct {
	// WorkspaceID names the workspace for ever: 1 to 64 of A-Z, a-z, 0-9, - and _.
	WorkspaceID string
	// WorkspaceName is what people call it.
	WorkspaceName string
	// Build is the number of the build that starts it, from 1.
	Build int64
	// Dir is the workspace's own directory, an absolute path. It is made if it does not exist; the provisioner's own
	// files are in .tunneler below it.
	Dir string
	// Template says what runs, where, and with which variables.
	Template template.Template
	// Agent says how to run the agent.
	Agent AgentSpec
}

// Ref is the instance that the spec describes.
func (s Spec) Ref() Ref { return Ref{s.WorkspaceID, s.WorkspaceName, s.Build} }

// AgentSpec says how to run an agent.
type AgentSpec struct {
	// Argv is the agent's program, as an absolute path, and its arguments. The program is $TUNNEL_BIN for the
	// template's start command. No argument may be a secret: argument lists are public.
	Argv []string
	// Env holds KEY=value pairs that tell the agent where its server and its token are. A secret belongs in a file
	// (0600) whose path a pair may hold.
	Env []string
}

// A Ref names an instance: one build's run of a workspace.
type Ref struct {
	WorkspaceID   string
	WorkspaceName string
	Build         int64
}

// A Line is one line of output.
type Line struct {
	// Time is when the provisioner saw it.
	Time time.Time
	// Level is LogInfo for what a process wrote.
	Level events.LogLevel
	// Source tells who wrote it.
	Source Source
	// Text is the line as valid UTF-8, without its line break: at most 64 KiB of what was written.
	Text string
	// Partial is set when no line break followed: the line was too long and goes on in the next one, or the process
	// ended or fell silent in the middle of it.
	Partial bool
}

// Source tells who wrote a line.
type Source string

const (
	// SourceProvisioner is what the provisioner itself has to say.
	SourceProvisioner Source = "provisioner"
	// SourceProcess is the output of a workspace's processes, standard error included.
	SourceProcess Source = "process"
)

// Resolve is asked by Recover about every instance that an earlier server recorded. It returns the spec to restart it
// with and where its lines go; false if the workspace should not be running this build.
type Resolve func(ref Ref) (spec Spec, out func(Line), ok bool)

// Recovered is what Recover found.
type Recovered struct {
	// Adopted are the instances that run and are known.
	Adopted []*Instance
	// Lost are the instances that resolve knew and that ended while no server ran.
	Lost []Lost
}

// Lost is an instance that ended while no server ran.
type Lost struct {
	Ref
	// Established tells whether it had been; otherwise it died while its build was under way.
	Established bool
}

// An Exit reports that an instance's process ended though nobody stopped it.
type Exit struct {
	Ref
	// Err says how it ended.
	Err *ExitError
	// RestartIn is how long it will be until the next start; 0 if there will be none because the instance was not
	// established.
	RestartIn time.Duration
}

// A Restart reports that an instance's process was started again.
type Restart struct {
	Ref
	// PID is the new process.
	PID int
	// Attempt counts the starts since the process last ran for a minute, from 1.
	Attempt int
}
