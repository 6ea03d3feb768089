package fsm

import (
	"fmt"

	"github.com/tunneler/tunneler/events"
)

// Reason is why a tunnel went down.
type Reason uint8

// The reasons. ReasonNone is a plain shutdown, which is no error.
const (
	ReasonNone         Reason = iota // shutdown
	ReasonDeleted                    // deleted
	ReasonStopped                    // stopped
	ReasonBuildFailed                // failed
	ReasonStartRefused               // start refused
	ReasonDial                       // dial
	ReasonLost                       // lost
	ReasonApp                        // app
	ReasonWatch                      // watch
	ReasonTimeout                    // timeout
	ReasonAborted                    // aborted
	ReasonReplaced                   // replaced
	ReasonScript                     // script
)

// Error is why a tunnel ended. Compare with errors.Is and the Err variables,
// which match by reason, or take it with errors.As for its parts.
type Error struct {
	// Reason is the first reason to go down.
	Reason Reason
	// State is the state in which it arose.
	State State
	// Err is the cause, if there is more to say than the reason; Unwrap gives it.
	Err error
}

// The ends of a tunnel, for errors.Is.
var (
	ErrDeleted      = &Error{Reason: ReasonDeleted}
	ErrStopped      = &Error{Reason: ReasonStopped}
	ErrBuildFailed  = &Error{Reason: ReasonBuildFailed}
	ErrStartRefused = &Error{Reason: ReasonStartRefused}
	ErrDial         = &Error{Reason: ReasonDial}
	ErrLost         = &Error{Reason: ReasonLost}
	ErrApp          = &Error{Reason: ReasonApp}
	ErrWatch        = &Error{Reason: ReasonWatch}
	ErrTimeout      = &Error{Reason: ReasonTimeout}
	ErrAborted      = &Error{Reason: ReasonAborted}
	ErrReplaced     = &Error{Reason: ReasonReplaced}
	ErrScript       = &Error{Reason: ReasonScript}
)

// Error is a sentence for a person.
func (e *Error) Error() string {
	s := e.sentence()
	if e.Err != nil {
		return s + ": " + e.Err.Error()
	}
	return s
}

func (e *Error) sentence() string {
	switch e.Reason {
	case ReasonDeleted:
		return "the workspace was deleted"
	case ReasonStopped:
		return "the workspace is stopped"
	case ReasonBuildFailed:
		return "the workspace's build failed"
	case ReasonStartRefused:
		return "the workspace could not be started"
	case ReasonDial:
		return "the workspace's agent could not be reached"
	case ReasonLost:
		return "the connection to the workspace was lost"
	case ReasonApp:
		if e.State == TailnetUp {
			return "the application could not be started"
		}
		return "the application ended"
	case ReasonWatch:
		return "the coordinator ended the watch on the workspace"
	case ReasonTimeout:
		return "timed out " + timedOutDoing(e.State)
	case ReasonAborted:
		return "aborted"
	case ReasonReplaced:
		return "the workspace was replaced by a newer one"
	case ReasonScript:
		return "the workspace's startup script failed"
	default:
		return "shut down"
	}
}

func timedOutDoing(s State) string {
	switch s {
	case Init:
		return "waiting for the first word from the coordinator"
	case WaitToStart:
		return "waiting for the workspace to stop"
	case WaitForWorkspaceStarted:
		return "waiting for the workspace to start"
	case WaitForAgent:
		return "waiting for the workspace's agent"
	case EstablishTailnet:
		return "connecting to the workspace's agent"
	case TailnetUp:
		return "starting the application"
	default:
		return "shutting down"
	}
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches by reason.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason && t.Err == nil
}

// BuildError is the cause of an Error with ReasonBuildFailed.
type BuildError struct {
	// Number is the build's number.
	Number int64
	// Transition is what it was to do.
	Transition events.Transition
	// Canceled is set for a build that somebody cancelled.
	Canceled bool
	// Message is the coordinator's reason; it may be empty.
	Message string
}

// Error is a sentence for a person.
func (e *BuildError) Error() string {
	what := "failed"
	if e.Canceled {
		what = "was cancelled"
	}
	s := fmt.Sprintf("%s build %d %s", e.Transition, e.Number, what)
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// err renders the machine's cause; nil for a plain shutdown.
func (m *model) err() error {
	if !m.down || m.cause == ReasonNone {
		return nil
	}
	return &Error{Reason: m.cause, State: m.causeState, Err: m.causeErr}
}
