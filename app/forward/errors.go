package forward

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What can be wrong with a port spec: the Kind of a SpecError.
var (
	// ErrSyntax is a spec that has not the shape of one.
	ErrSyntax = errors.New("malformed port forward")
	// ErrPort is a part that is not a port, or a port that cannot be used there.
	ErrPort = errors.New("bad port")
	// ErrRange is a range that is reversed, or two of unequal length.
	ErrRange = errors.New("bad port range")
	// ErrHost is a part that is not a host or address.
	ErrHost = errors.New("bad host")
	// ErrDuplicate is a local port that is wanted twice on the same address.
	ErrDuplicate = errors.New("duplicate local port")
	// ErrTooMany is more than MaxForwards forwards.
	ErrTooMany = errors.New("too many port forwards")
)

// SpecError is a port spec that cannot be used. It unwraps to its Kind.
type SpecError struct {
	Spec     string // as it was written
	Kind     error  // one of ErrSyntax, ErrPort, ErrRange, ErrHost, ErrDuplicate, ErrTooMany
	Problem  string // what is wrong, without the spec
	Expected string // what would be right
}

func (e *SpecError) Error() string {
	return fmt.Sprintf("port forward %s: %s, expected %s", quote(e.Spec), e.Problem, e.Expected)
}

// Unwrap returns the kind.
func (e *SpecError) Unwrap() error { return e.Kind }

// in says which spec the error is about.
func (e *SpecError) in(spec string) *SpecError {
	e.Spec = spec
	return e
}

// quote quotes what a stranger wrote so that it is safe to print, and cuts it
// at maxQuoted bytes.
func quote(text string) string {
	if len(text) > maxQuoted {
		return strconv.Quote(strings.ToValidUTF8(text[:maxQuoted], "")) + "..."
	}
	return strconv.Quote(text)
}

// Why a connection could not be carried. They come in Problem.Err.
var (
	// ErrTooManyConns is Options.MaxConns reached.
	ErrTooManyConns = errors.New("too many connections")
	// ErrTooManyWaiting is Options.MaxWaiting reached.
	ErrTooManyWaiting = errors.New("too many connections wait for the tunnel")
	// ErrDialTimeout is a dial that took longer than Options.DialTimeout.
	ErrDialTimeout = errors.New("dial timed out")
)

// Why a connection that waits for a tunnel gives up.
var (
	errNoTunnel = errors.New("no tunnel came in time")
	errClosed   = errors.New("the application is closed")
)

// PortTakenError is a local port that something else listens on.
// It unwraps to the error of the operating system.
type PortTakenError struct {
	Spec    Spec
	Address string  // host and port that could not be had
	Holder  *Holder // who has it, nil if that cannot be found out
	Err     error
}

func (e *PortTakenError) Error() string {
	by := ""
	if e.Holder != nil {
		by = " by " + e.Holder.String()
	}
	free := e.Spec
	free.Local = 0
	return fmt.Sprintf("local port %s is taken%s: stop what uses it, or forward another one (%s picks one that is free)",
		e.Address, by, free)
}

func (e *PortTakenError) Unwrap() error { return e.Err }

// Holder is a process that holds a port. Zero fields are not known.
type Holder struct {
	PID     int    // process ID
	Command string // name of its executable, safe to print
	UID     int    // user ID of its owner, -1 when not known
	Self    bool   // it is this process
}

func (h *Holder) String() string {
	switch {
	case h.Self:
		return fmt.Sprintf("this process (pid %d)", h.PID)
	case h.PID != 0 && h.Command != "":
		return fmt.Sprintf("%s (pid %d)", h.Command, h.PID)
	case h.PID != 0:
		return fmt.Sprintf("process %d", h.PID)
	case h.UID >= 0:
		return fmt.Sprintf("a process of the user with ID %d", h.UID)
	default:
		return "another process"
	}
}

// BindError is an address that cannot be listened on for any reason but that
// it is taken. It unwraps to the error of the operating system.
type BindError struct {
	Spec    Spec
	Address string // host and port
	Err     error
}

func (e *BindError) Error() string {
	why, todo := e.Err.Error(), "choose another address or port"
	var dns *net.DNSError
	switch {
	case errors.Is(e.Err, syscall.EACCES):
		why, todo = "not permitted", "choose a local port above 1023 or run with the privilege to use it"
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		why, todo = "not an address of this host", "listen on one that is, or on * for all of them"
	case errors.Is(e.Err, syscall.EMFILE), errors.Is(e.Err, syscall.ENFILE):
		why, todo = "too many open files", "raise the limit (ulimit -n) or forward fewer ports"
	case errors.As(e.Err, &dns):
		why, todo = "the name cannot be resolved", "listen on an address of this host"
	}
	return fmt.Sprintf("cannot listen on %s for forward %s: %s: %s", e.Address, e.Spec, why, todo)
}

func (e *BindError) Unwrap() error { return e.Err }

// DeadError says that every listener failed for good, one cause for each.
type DeadError struct{ Causes []error }

func (e *DeadError) Error() string {
	return fmt.Sprintf("no local port is left to listen on: %v", errors.Join(e.Causes...))
}

// Unwrap returns the causes.
func (e *DeadError) Unwrap() []error { return e.Causes }

// dialTimeoutError is what a dial that was given up is reported as.
type dialTimeoutError struct{ after time.Duration }

func (e *dialTimeoutError) Error() string { return fmt.Sprintf("no answer within %v", e.after) }
func (e *dialTimeoutError) Unwrap() error { return ErrDialTimeout }
