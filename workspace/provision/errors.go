package provision

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// ErrClosed is the error of every call after Close.
var ErrClosed = errors.New("the provisioner is closed")

// A SpecError says what is wrong with a Spec, and so is nothing that trying again could mend.
type SpecError struct {
	// Field is the part of the Spec.
	Field string
	// Msg says what is wrong with it.
	Msg string
}

func (e *SpecError) Error() string { return fmt.Sprintf("cannot start: %s %s", e.Field, e.Msg) }

// A BusyError says that a workspace still runs another build.
type BusyError struct {
	Ref
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("workspace %s still runs build %d: stop it first", e.WorkspaceName, e.Build)
}

// An ExitError says how a workspace's process ended by itself.
type ExitError struct {
	Ref
	// PID is the process that ended.
	PID int
	// Status is how.
	Status Status
	// Tail holds the last lines of its output, at most 10, oldest first.
	Tail []string
}

func (e *ExitError) Error() string {
	msg := fmt.Sprintf("the process of workspace %s %s", e.WorkspaceName, e.Status)
	if len(e.Tail) > 0 {
		msg += ": " + strings.Join(e.Tail, " | ")
	}
	return msg
}

// Status is how a process ended.
type Status struct {
	// Known is false for a process that was not this server's own child, but adopted.
	Known bool
	// Code is the exit status of one that exited.
	Code int
	// Signal is the signal that ended it, or 0.
	Signal syscall.Signal
}

func (s Status) String() string {
	switch {
	case !s.Known:
		return "ended"
	case s.Signal != 0:
		return fmt.Sprintf("was ended by signal %d (%v)", int(s.Signal), s.Signal)
	default:
		return fmt.Sprintf("exited with status %d", s.Code)
	}
}

// A StragglerError says that processes of a workspace could not be ended.
type StragglerError struct {
	WorkspaceID string
	// PIDs are those processes, in ascending order.
	PIDs []int
}

func (e *StragglerError) Error() string {
	return fmt.Sprintf("processes %s of workspace %s do not end: end them by hand",
		strings.Trim(fmt.Sprint(e.PIDs), "[]"), e.WorkspaceID)
}
