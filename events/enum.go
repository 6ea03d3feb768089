package events

import "fmt"

// Transition is what a build does to its workspace.
type Transition uint8

// The transitions of a build.
const (
	TransitionUnknown Transition = iota // unknown
	TransitionStart                     // start
	TransitionStop                      // stop
	TransitionDelete                    // delete
)

// JobStatus is how far a build has come.
type JobStatus uint8

// The statuses of a build. Canceling is still active: the job runs until it
// has noticed.
const (
	JobUnknown   JobStatus = iota // unknown
	JobPending                    // pending
	JobRunning                    // running
	JobSucceeded                  // succeeded
	JobCanceling                  // canceling
	JobCanceled                   // canceled
	JobFailed                     // failed
)

// Final reports whether the status never changes again.
func (s JobStatus) Final() bool {
	return s == JobSucceeded || s == JobCanceled || s == JobFailed
}

// Lifecycle is the state of an agent's life, as the agent reports it.
type Lifecycle uint8

// The lifecycle of an agent. The timeout and error states are reported beside
// the agent being usable: a failed startup script does not end the agent.
const (
	LifecycleUnknown         Lifecycle = iota // unknown
	LifecycleCreated                          // created
	LifecycleStarting                         // starting
	LifecycleStartTimeout                     // start_timeout
	LifecycleStartError                       // start_error
	LifecycleReady                            // ready
	LifecycleShuttingDown                     // shutting_down
	LifecycleShutdownTimeout                  // shutdown_timeout
	LifecycleShutdownError                    // shutdown_error
	LifecycleOff                              // off
)

// AgentStatus is whether the coordinator hears the agent.
type AgentStatus uint8

// The connection statuses of an agent. Timeout means that it never connected
// within the template's start time-out.
const (
	AgentUnknown      AgentStatus = iota // unknown
	AgentConnecting                      // connecting
	AgentConnected                       // connected
	AgentDisconnected                    // disconnected
	AgentTimeout                         // timeout
)

// LogLevel is the severity of a log line.
type LogLevel uint8

// The severities, in rising order.
const (
	LogUnknown LogLevel = iota // unknown
	LogDebug                   // debug
	LogInfo                    // info
	LogWarn                    // warn
	LogError                   // error
)

// WatchState is the state of the subscription to a workspace's updates.
type WatchState uint8

// The states of a watch. Lost is final: retrying cannot mend it.
const (
	WatchUnknown  WatchState = iota // unknown
	WatchUp                         // up
	WatchRetrying                   // retrying
	WatchLost                       // lost
)

// PathKind is what carries the tailnet's datagrams.
type PathKind uint8

// The kinds of path.
const (
	PathUnknown   PathKind = iota // unknown
	PathDirect                    // direct
	PathRelay                     // relay
	PathWebSocket                 // websocket
)

// Network is the kind of target that a stream is opened to.
type Network uint8

// The networks of a target, as in package net.
const (
	NetworkUnknown Network = iota // unknown
	NetworkTCP                    // tcp
	NetworkUDP                    // udp
	NetworkUnix                   // unix
)

// ReplyCode is the agent's answer to an opened stream.
type ReplyCode uint8

// The answers. Anything but ReplyOK ends the stream.
const (
	ReplyOK          ReplyCode = iota // ok
	ReplyRefused                      // refused
	ReplyUnreachable                  // unreachable
	ReplyTimeout                      // timeout
	ReplyDenied                       // denied
	ReplyTooMany                      // too many
	ReplyBadRequest                   // bad request
	ReplyInternal                     // internal error
)

// CloseCode is the application error code with which a tailnet connection is
// closed (RFC 9000, section 10.2), the same on the wire and in CONNECTION_CLOSE.
type CloseCode uint8

// The close codes.
const (
	CloseNormal       CloseCode = iota // normal
	CloseGoingAway                     // going away
	CloseReplaced                      // replaced
	CloseProtocol                      // protocol error
	CloseLost                          // lost
	CloseUnauthorized                  // unauthorized
)

// enum is what the text form of an enumeration needs.
type enum interface {
	~uint8
	fmt.Stringer
}

// parseEnum finds the value whose String is text; ok is false and the value
// zero, Unknown, for any other word: a newer peer may know more words than we.
func parseEnum[E enum](text []byte, last E) (E, bool) {
	for v := E(0); v <= last; v++ {
		if v.String() == string(text) {
			return v, true
		}
	}
	return 0, false
}

// The text forms below never fail on decoding: an unknown word becomes the
// Unknown value, which every reader treats as "not final, not ready".

// MarshalText implements encoding.TextMarshaler.
func (t Transition) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Transition) UnmarshalText(b []byte) error {
	*t, _ = parseEnum(b, TransitionDelete)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (s JobStatus) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *JobStatus) UnmarshalText(b []byte) error {
	*s, _ = parseEnum(b, JobFailed)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (l Lifecycle) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Lifecycle) UnmarshalText(b []byte) error {
	*l, _ = parseEnum(b, LifecycleOff)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (s AgentStatus) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *AgentStatus) UnmarshalText(b []byte) error {
	*s, _ = parseEnum(b, AgentTimeout)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (l LogLevel) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *LogLevel) UnmarshalText(b []byte) error {
	*l, _ = parseEnum(b, LogError)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (s WatchState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *WatchState) UnmarshalText(b []byte) error {
	*s, _ = parseEnum(b, WatchLost)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (k PathKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *PathKind) UnmarshalText(b []byte) error {
	*k, _ = parseEnum(b, PathWebSocket)
	return nil
}

// ParseNetwork reads a network name as in package net; "tcp4", "tcp6", "udp4"
// and "udp6" are TCP and UDP.
func ParseNetwork(name string) (Network, error) {
	switch name {
	case "tcp", "tcp4", "tcp6":
		return NetworkTCP, nil
	case "udp", "udp4", "udp6":
		return NetworkUDP, nil
	case "unix":
		return NetworkUnix, nil
	}
	return NetworkUnknown, fmt.Errorf("unknown network %q: expected tcp, udp or unix", name)
}
