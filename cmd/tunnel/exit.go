package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/tunneler/tunneler/app/forward"
	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/fsm"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/client"
	"github.com/tunneler/tunneler/workspace/store"
	"github.com/tunneler/tunneler/workspace/template"
)

// The exit codes of every command, as docs/cli.md lists them. A command given
// to `up` after -- passes its own code on.
const (
	exitOK        = 0   // done, or stopped by the user
	exitFailed    = 1   // the tunnel, or whatever was asked for, failed
	exitUsage     = 2   // the command line makes no sense
	exitForbidden = 3   // no token, or one that does not allow it
	exitNotFound  = 4   // no such workspace, agent or template
	exitNotUp     = 5   // the workspace cannot be started
	exitTimeout   = 6   // it did not come up in time
	exitForced    = 130 // a second Ctrl-C
)

// failure is an error with what the program makes of it.
type failure struct {
	err   error
	code  int
	hints []string
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// usagef is an error of the command line.
func usagef(format string, args ...any) error {
	return &failure{err: fmt.Errorf(format, args...), code: exitUsage}
}

// withHint adds what to do about err.
func withHint(err error, hints ...string) error {
	if err == nil {
		return nil
	}
	f := explain(err)
	f.hints = append(f.hints, hints...)
	return f
}

// commandExit is how the command after -- ended.
type commandExit int

func (c commandExit) Error() string {
	return fmt.Sprintf("the command ended with exit code %d", int(c))
}

// explain turns any error into a failure: the one place that knows which
// error means which exit code, and what to advise.
func explain(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		c := *f
		return &c
	}
	f = &failure{err: err, code: exitFailed}
	var (
		ended       *fsm.Error
		apiErr      *api.Error
		watchErr    *events.WatchError
		unreachable *client.UnreachableError
		syntax      *template.SyntaxError
		taken       *forward.PortTakenError
	)
	switch {
	case errors.As(err, &apiErr):
		f.code, f.hints = explainAPI(apiErr)
	case errors.As(err, &watchErr):
		f.code = explainWatch(watchErr)
	case errors.As(err, &unreachable):
		f.hints = []string{"start one with `tunnel serve`, or leave --server out to use the embedded server"}
	case errors.As(err, &syntax):
		f.code = exitUsage
	case errors.As(err, &taken):
		free := taken.Spec
		free.Local = 0
		f.hints = []string{"stop what uses it, or forward another one: -p " + free.String() + " picks one that is free"}
	case errors.Is(err, store.ErrIncompatible):
		f.hints = []string{"use the version of tunnel that made it, or another --data-dir"}
	case errors.Is(err, syscall.ENOSPC):
		f.hints = []string{"free some space on the disk of the data directory, or choose another --data-dir"}
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		f.hints = []string{"choose a --data-dir that can be written"}
	case errors.Is(err, context.DeadlineExceeded):
		f.code = exitTimeout
	}
	if errors.As(err, &ended) {
		f.code = explainEnd(ended, f.code)
		if ended.Reason == fsm.ReasonStopped {
			f.hints = append(f.hints, "start it with `tunnel workspaces start`, or leave --no-autostart out")
		}
	}
	return f
}

// explainEnd is the code for the end of a tunnel; cause is that of the error
// beneath.
func explainEnd(e *fsm.Error, cause int) int {
	switch e.Reason {
	case fsm.ReasonNone:
		return exitOK
	case fsm.ReasonTimeout:
		return exitTimeout
	case fsm.ReasonDeleted:
		return exitNotFound
	case fsm.ReasonStopped, fsm.ReasonBuildFailed, fsm.ReasonScript:
		return exitNotUp
	case fsm.ReasonStartRefused:
		if cause == exitFailed {
			return exitNotUp
		}
		return cause
	case fsm.ReasonAborted:
		return exitForced
	default:
		return cause
	}
}

func explainAPI(e *api.Error) (code int, hints []string) {
	if e.Hint != "" {
		hints = append(hints, e.Hint)
	}
	if len(e.Nearest) > 0 {
		hints = append(hints, "did you mean "+strings.Join(e.Nearest, ", ")+"?")
	}
	switch e.Code {
	case api.CodeUnauthorized, api.CodeForbidden:
		return exitForbidden, hints
	case api.CodeNotFound:
		return exitNotFound, hints
	case api.CodeBadRequest, api.CodeTooLarge:
		return exitUsage, hints
	case api.CodeAgentTimeout:
		return exitTimeout, hints
	default:
		return exitFailed, hints
	}
}

func explainWatch(e *events.WatchError) int {
	switch e.Code {
	case events.WatchUnauthorized:
		return exitForbidden
	case events.WatchNotFound, events.WatchNameNotFound, events.WatchNoAgents, events.WatchTooManyAgents:
		return exitNotFound
	default:
		return exitFailed
	}
}
