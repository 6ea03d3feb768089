package channel

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

const (
	// DefaultOutboxLimit is how many messages wait for their turn.
	DefaultOutboxLimit = 256
	// DefaultLogWindow is how many log batches are on their way at once.
	DefaultLogWindow = 32
	// DefaultMaxUnauthorized is how many tokens in a row may be refused.
	DefaultMaxUnauthorized = 5
)

// Options say where a client connects and what it does with what it hears.
// URL, Token and Hello.AgentID are required.
type Options struct {
	// URL gives the address of the channel, with scheme ws, wss, http or https.
	// It is called at each attempt: a server may come back elsewhere. An error
	// is tried again like a failed dial, unless it is events.Permanent.
	URL func(ctx context.Context) (string, error)
	// Token gives the bearer token to connect with. It is called at each
	// attempt and may answer from a cache, except when refused is set: then the
	// server has not accepted what it gave last. Errors are as URL's.
	Token func(ctx context.Context, refused bool) (string, error)
	// Hello is what the client says of itself.
	Hello events.SessionHello

	// Handler is called, one message after the other, with what the server
	// says and the client does not answer itself; ctx ends with the
	// connection. It holds up everything else that comes in, so it must not
	// wait. Acknowledgements of logs, too, are passed on.
	Handler func(ctx context.Context, m events.ChannelMessage)
	// OnState is called with each change of the connection, from Run's
	// goroutine. It must not wait.
	OnState func(State)

	// BackoffFloor and BackoffCeil are the first and the longest delay between
	// two attempts; zero means 1 s and 60 s. Against a server on the same
	// machine, to connect costs nothing, and both may be far shorter.
	BackoffFloor, BackoffCeil time.Duration
	// Rand spreads the attempts. It returns numbers in [0, 1) and is called
	// from Run's goroutine; nil means the runtime's own source.
	Rand func() float64
	// MaxUnauthorized is how many tokens in a row the server may refuse before
	// Run gives up; zero means 5.
	MaxUnauthorized int
	// OutboxLimit is how many messages wait to be sent, LogWindow how many log
	// batches are sent ahead of their acknowledgement; zero means 256 and 32.
	OutboxLimit, LogWindow int

	// DialContext makes the network connection; nil dials TCP, through the
	// proxy that the environment names, if it names one.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS is used for wss; nil means the system's authorities.
	TLS *tls.Config
	// Logger is for lost connections and odd messages; nil logs nothing.
	Logger *zap.Logger
	// Metrics counts; nil means a Metrics of the client's own.
	Metrics *Metrics
}

// State is what has become of the connection.
type State struct {
	// Connected is true once the server has welcomed the client, with Welcome.
	Connected bool
	Welcome   *events.SessionWelcome
	// Err says why there is no connection, and Retry when the next attempt
	// begins.
	Err   error
	Retry time.Duration
}

func (o Options) withDefaults() (Options, error) {
	if o.URL == nil || o.Token == nil || o.Hello.AgentID == "" {
		return o, errors.New("a channel needs a URL, a token and an agent id")
	}
	if o.Handler == nil {
		o.Handler = func(context.Context, events.ChannelMessage) {}
	}
	if o.OnState == nil {
		o.OnState = func(State) {}
	}
	if o.BackoffFloor <= 0 {
		o.BackoffFloor = defaultBackoffFloor
	}
	if o.BackoffCeil <= 0 {
		o.BackoffCeil = defaultBackoffCeil
	}
	o.BackoffCeil = max(o.BackoffCeil, o.BackoffFloor)
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.MaxUnauthorized <= 0 {
		o.MaxUnauthorized = DefaultMaxUnauthorized
	}
	if o.OutboxLimit <= 0 {
		o.OutboxLimit = DefaultOutboxLimit
	}
	if o.LogWindow <= 0 {
		o.LogWindow = DefaultLogWindow
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Metrics == nil {
		o.Metrics = new(Metrics)
	}
	if o.Hello.Capabilities == nil {
		o.Hello.Capabilities = []string{} // a list on the wire, not null
	}
	return o, nil
}
