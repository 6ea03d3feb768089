package fsm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

// Client is what a tunneler needs from the world for one workspace. Its
// methods run in goroutines of their own and may block; each must return soon
// after its context is cancelled.
type Client interface {
	// Watch follows the workspace until ctx ends, and emits BuildUpdate,
	// AgentUpdate, BuildLog, AgentLog and WatchUpdate events in order. It
	// reconnects by itself, and returns an error only for what retrying cannot
	// mend. emit blocks until the machine has taken the event.
	Watch(ctx context.Context, emit func(events.Event)) error
	// StartWorkspace asks for a start build.
	StartWorkspace(ctx context.Context) events.StartResult
	// Dial brings up a connection to an agent. ctx bounds the dial alone, not
	// the connection. emit takes PathUpdate events for as long as the
	// connection lives. An error marked by events.Permanent is not retried.
	Dial(ctx context.Context, req DialRequest, emit func(events.Event)) (Conn, error)
	// StartApp starts the application on a connection; ctx bounds the start.
	StartApp(ctx context.Context, conn Conn) (App, error)
}

// DialRequest says what to dial.
type DialRequest struct {
	// Agent is the id of the agent process that the watch has shown.
	Agent string
	// Build is the build that it belongs to.
	Build int64
	// Attempt counts the dials since the last stable connection, from 1.
	Attempt int
}

// Conn is a tailnet connection.
type Conn interface {
	// Close closes it; it is idempotent and may be called while others use it.
	Close() error
	// Done is closed once the connection is down and everything of it released.
	Done() <-chan struct{}
	// Err says why, once Done is closed; nil after Close.
	Err() error
}

// App is what runs on a tunnel.
type App interface {
	// Attach hands it another live connection; it must not block.
	Attach(Conn)
	// Detach takes the connection away: the application keeps its listeners,
	// and new connections wait, bounded. It must not block.
	Detach()
	// Shutdown ends it in order; when ctx ends first, at once.
	Shutdown(ctx context.Context) error
	// Close ends it at once.
	Close() error
	// Done is closed once it has ended and everything of it is released.
	Done() <-chan struct{}
	// Err says why, once Done is closed; nil after Shutdown or Close.
	Err() error
}

// Config is how a tunneler behaves. The zero value is ready for use.
type Config struct {
	// NoAutostart never starts the workspace.
	NoAutostart bool
	// NoWaitForScripts connects while the startup script is still running.
	NoWaitForScripts bool
	// StrictScripts gives up when the startup script failed or timed out.
	StrictScripts bool
	// OnStop is what to do when the workspace is stopped or replaced.
	OnStop OnStop
	// MaxAttempts bounds the dials that may fail in a row before the tunnel
	// has first been up; 0 means no bound. A tunnel that was up goes on trying.
	MaxAttempts int
	// StableAfter is how long a connection must live for its loss to start the
	// backoff anew; default 10 s.
	StableAfter time.Duration
	// Backoff is the delay between dials.
	Backoff Backoff
	// Timeout bounds the whole way up, until the tunnel has first worked; 0
	// means no bound.
	Timeout time.Duration
	// Deadlines bound single states; a state that is not named has its
	// default, see DefaultDeadlines, and a negative value means no bound. A
	// tunnel that was up, and rides out a stop, waits without bound.
	Deadlines map[State]time.Duration
	// Logger takes what an operator should know; nil means silence.
	Logger *zap.Logger
	// Rand gives the jitter, in [0, 1); nil means math/rand.
	Rand func() float64
}

// Backoff is the delay before dial n+1 after n dials in a row that failed:
// Initial doubled n-1 times, at most Max, less a random part of up to Jitter.
type Backoff struct {
	// Initial is the first delay; default 250 ms.
	Initial time.Duration
	// Max bounds it; default 15 s.
	Max time.Duration
	// Jitter is the share that is random, from 0 to 1; default 0.3.
	Jitter float64
}

// DefaultDeadlines are the bounds on single states.
func DefaultDeadlines() map[State]time.Duration {
	return map[State]time.Duration{
		Init:                    time.Minute,
		WaitToStart:             10 * time.Minute,
		WaitForWorkspaceStarted: 30 * time.Minute,
		WaitForAgent:            15 * time.Minute,
		EstablishTailnet:        30 * time.Second,
		TailnetUp:               time.Minute,
		ShutdownApplication:     15 * time.Second,
		ShutdownTailnet:         15 * time.Second,
	}
}

// ErrConfig is wrapped by the error of Run for a configuration that makes no sense.
var ErrConfig = errors.New("bad tunneler configuration")

func (c *Config) check() error {
	switch {
	case c.OnStop > OnStopRestart:
		return fmt.Errorf("%w: unknown OnStop %d", ErrConfig, c.OnStop)
	case c.MaxAttempts < 0:
		return fmt.Errorf("%w: MaxAttempts is negative", ErrConfig)
	case c.Timeout < 0:
		return fmt.Errorf("%w: Timeout is negative", ErrConfig)
	case c.NoWaitForScripts && c.StrictScripts:
		return fmt.Errorf("%w: NoWaitForScripts and StrictScripts exclude each other", ErrConfig)
	case c.StableAfter < 0:
		return fmt.Errorf("%w: StableAfter is negative", ErrConfig)
	case c.Backoff.Initial < 0 || c.Backoff.Max < 0:
		return fmt.Errorf("%w: Backoff.Initial or Backoff.Max is negative", ErrConfig)
	case !(c.Backoff.Jitter >= 0 && c.Backoff.Jitter <= 1): // NaN is neither
		return fmt.Errorf("%w: Backoff.Jitter is not between 0 and 1", ErrConfig)
	}
	for s := range c.Deadlines {
		if s == ApplicationUp || int(s) >= numStates-1 {
			return fmt.Errorf("%w: state %s has no deadline", ErrConfig, s)
		}
	}
	return nil
}

// withDefaults fills in what was left out.
func (c Config) withDefaults() Config {
	if c.StableAfter == 0 {
		c.StableAfter = 10 * time.Second
	}
	if c.Backoff.Initial == 0 {
		c.Backoff.Initial = 250 * time.Millisecond
	}
	if c.Backoff.Max == 0 {
		c.Backoff.Max = 15 * time.Second
	}
	if c.Backoff.Jitter == 0 {
		c.Backoff.Jitter = 0.3
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Rand == nil {
		c.Rand = rand.Float64
	}
	return c
}

var defaultDeadlines = DefaultDeadlines()

func (c *Config) deadline(s State) time.Duration {
	if d, ok := c.Deadlines[s]; ok {
		return d
	}
	return defaultDeadlines[s]
}

func (c *Config) rules() *rules {
	return &rules{
		noAutostart:      c.NoAutostart,
		noWaitForScripts: c.NoWaitForScripts,
		strictScripts:    c.StrictScripts,
		onStop:           c.OnStop,
		maxAttempts:      c.MaxAttempts,
		stableAfter:      c.StableAfter,
	}
}

// delay is the backoff after so many dials in a row that did not last; none
// after a stable connection.
func (b Backoff) delay(attempt int, random func() float64) time.Duration {
	if attempt == 0 {
		return 0
	}
	d := b.Initial
	for range attempt - 1 {
		if d > b.Max/2 { // doubling it must not overflow
			d = b.Max
			break
		}
		d *= 2
	}
	d = min(d, b.Max)
	return d - time.Duration(b.Jitter*random()*float64(d))
}
