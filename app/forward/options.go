package forward

import (
	"context"
	"net"
	"time"

	"go.uber.org/zap"
)

// Defaults of Options.
const (
	DefaultAttachTimeout = 30 * time.Second
	DefaultDialTimeout   = 30 * time.Second
	DefaultMaxWaiting    = 256
	DefaultMaxConns      = 10_000
)

// Dialer is a tunnel: it opens connections on the workspace's side.
//
// DialContext is called with network "tcp" and the Target of a Spec. A dialer
// may return before the far side has answered; a refusal then comes as the
// error of the first Read. The context bounds the time until the answer, in
// either case: it ends when DialTimeout is over, when the tunnel is taken away
// or with the connection, and must mean nothing to a connection that has been
// answered. DialContext must be safe for concurrent use.
//
// Of a connection, Read, Write, Close and the deadlines must be safe for
// concurrent use, as net.Conn says. It may offer more:
//   - CloseWrite() error ends the sending side alone. Without it the end of
//     the local client's stream ends the whole connection.
//   - Reset(code events.CloseCode), or Reset(code uint64), tears it down so
//     that the far side can tell; Close is called after it. The code is
//     events.CloseNormal when the local client or the far side had reset the
//     connection, events.CloseGoingAway when the application was closed or the
//     tunnel taken away. Without it, SetLinger(0) is tried before Close.
//   - io.ReaderFrom and io.WriterTo spare a copy and are used.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Options say what to forward and within which limits. The zero value of each
// field is useful.
type Options struct {
	// Forwards are what to listen on, as ParseSpecs returns them. None is
	// legal: such an App carries nothing until it is closed.
	Forwards []Spec

	// AttachTimeout is how long a new connection waits for a tunnel before it
	// is reset. 0 is DefaultAttachTimeout, negative is not at all.
	AttachTimeout time.Duration
	// MaxWaiting is how many connections may wait at once; further ones are
	// reset. 0 is DefaultMaxWaiting, negative is none.
	MaxWaiting int
	// DialTimeout bounds each DialContext. 0 is DefaultDialTimeout.
	DialTimeout time.Duration
	// MaxConns is how many connections there may be at once, those that wait
	// or are dialled included; further ones are reset. 0 is DefaultMaxConns.
	// Each needs one file descriptor.
	MaxConns int
	// DrainTimeout is how long Close lets connections finish before it resets
	// them. 0 is not at all.
	DrainTimeout time.Duration

	// Explain says in a sentence (lower case, no full stop) what a dial's or a
	// first Read's error means, with ok false if it is not one that says that
	// the target could not be reached. Nil explains nothing.
	Explain func(err error) (sentence string, ok bool)
	// Gone reports whether an error means that the tunnel takes no connection
	// any more, being lost, closed or draining, and not that one target failed.
	// From then on new connections wait for the next tunnel, as after Detach,
	// and so does one whose dial failed so; those in flight are left to
	// themselves until Detach. Nil means never.
	Gone func(err error) bool
	// OnProblem is told what a user should know. The goroutine of a connection
	// or listener calls it: it must return soon, must not call Close or Abort,
	// and may be called by several at once. Nil drops problems.
	OnProblem func(Problem)
	// Log gets what is wrong with listeners (warn) and connections (debug).
	// Nil logs nothing.
	Log *zap.Logger

	// listen opens a listener; nil is the operating system's.
	listen listenFunc
}

// listenFunc is net.ListenConfig.Listen.
type listenFunc func(ctx context.Context, network, address string) (net.Listener, error)

// Problem is something about a forward that a user should know. The forward
// and the tunnel stay. One that is not reachable is reported once, and again
// only after it has worked in between.
type Problem struct {
	Forward  Bound
	Sentence string // lower case, no full stop; does not repeat the forward
	Err      error  // what it is about, for errors.Is and errors.As
}

func (o Options) withDefaults() Options {
	if o.AttachTimeout == 0 {
		o.AttachTimeout = DefaultAttachTimeout
	}
	if o.MaxWaiting == 0 {
		o.MaxWaiting = DefaultMaxWaiting
	}
	if o.DialTimeout <= 0 {
		o.DialTimeout = DefaultDialTimeout
	}
	if o.MaxConns <= 0 {
		o.MaxConns = DefaultMaxConns
	}
	if o.Explain == nil {
		o.Explain = func(error) (string, bool) { return "", false }
	}
	if o.Gone == nil {
		o.Gone = func(error) bool { return false }
	}
	if o.OnProblem == nil {
		o.OnProblem = func(Problem) {}
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.listen == nil {
		// Multipath TCP, which Go listens with by default, has nothing to offer here.
		config := &net.ListenConfig{}
		config.SetMultipathTCP(false)
		o.listen = config.Listen
	}
	return o
}
