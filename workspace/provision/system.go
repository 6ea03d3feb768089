package provision

import (
	"context"
	"os"
)

// An identity names a process for ever: a process ID alone is used again.
type identity struct {
	// PID is the ID of the process, which leads a session and a process group of the same ID.
	PID int `json:"pid"`
	// StartTime is when it started, in a unit of the system's own.
	StartTime uint64 `json:"start_time"`
	// BootID names the run of the kernel that StartTime counts in; empty where StartTime is enough.
	BootID string `json:"boot_id,omitempty"`
}

// A command is what a system starts.
type command struct {
	argv   []string
	dir    string
	env    []string
	output *os.File
	// owner and workspaceID are the marks in env by which the command's processes are found.
	owner, workspaceID string
}

// A system is the operating system, as far as this package needs it.
type system interface {
	// start runs a command as the leader of a session and process group of its own.
	start(cmd command) (process, error)
	// find returns a process that an earlier server started, if it still runs.
	find(owner, workspaceID string, id identity) (process, bool)
	// marked names the workspaces of an owner of which any process runs.
	marked(owner string) ([]string, error)
	// sweep kills every process of a workspace and returns when there is none, or with a *StragglerError when ctx is
	// done.
	sweep(ctx context.Context, owner, workspaceID string) error
}

// A process is the leader of a workspace's session, and all that descends from it. One goroutine uses it.
type process interface {
	identity() identity
	// wait returns when the leader has ended, or with ctx's error.
	wait(ctx context.Context) error
	// terminate asks the process group to end (SIGTERM).
	terminate() error
	// waitGroup returns when no member of the process group runs, or with ctx's error.
	waitGroup(ctx context.Context) error
	// kill ends the group and everything else of the workspace; otherwise like sweep.
	kill(ctx context.Context) error
	// reap collects the status of a leader that has ended. Nothing else may be called after it.
	reap() Status
	// release lets go of a leader that has not been reaped.
	release()
}
