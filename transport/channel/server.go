package channel

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

const (
	// DefaultMaxRequests is how many requests to one agent wait for their
	// answer at once.
	DefaultMaxRequests = 64

	// Limits of a hello, in bytes and items.
	maxHelloText    = 128
	maxCapabilities = 64
)

// ServerOptions say how the coordinator's half receives an agent. Hello is
// required.
type ServerOptions struct {
	// Hello decides on the agent's hello: it gives either the welcome or the
	// reject that is then sent. ctx ends after 10 s.
	Hello func(ctx context.Context, hello *events.SessionHello) (*events.SessionWelcome, *events.SessionReject)
	// Organization is what the agent is told that it belongs to.
	Organization string
	// MaxRequests is how many requests wait for their answer; zero means 64.
	MaxRequests int
	// OutboxLimit is how many messages wait to be sent; zero means 256.
	OutboxLimit int
	// Logger is for odd messages; nil logs nothing.
	Logger *zap.Logger
	// Metrics counts; nil means a Metrics of the connection's own.
	Metrics *Metrics
}

// ServerConn is the coordinator's half of one agent's channel. Its methods may
// be called from any goroutine.
type ServerConn struct {
	opts   ServerOptions
	socket *socket
	hello  *events.SessionHello

	out chan events.ChannelMessage
	// ending is closed by Close and Reject, with what to say set before; ended
	// when Run has ended or the connection was closed without it.
	endOnce     sync.Once
	ending      chan struct{}
	closeCode   int
	closeReason string
	lastWord    events.ChannelMessage
	endedOnce   sync.Once
	ended       chan struct{}

	mu      sync.Mutex
	running bool
	waiting map[string]chan *events.ConnectionResult
}

// upgrader lets in who asks without an Origin, as agents do: no web page is to
// speak to the channel with its visitor's credentials.
var upgrader = websocket.Upgrader{
	HandshakeTimeout: helloTimeout,
	CheckOrigin:      func(r *http.Request) bool { return r.Header.Get("Origin") == "" },
}

// Accept makes a channel of an agent's request, whose token its owner has
// checked, and exchanges hello and welcome within 10 s. The connection is the
// caller's to Run and to Close. On an error the request has been answered and
// the connection closed; a hello that was rejected gives a *RejectError.
func Accept(w http.ResponseWriter, r *http.Request, opts ServerOptions) (*ServerConn, error) {
	if opts.MaxRequests <= 0 {
		opts.MaxRequests = DefaultMaxRequests
	}
	if opts.OutboxLimit <= 0 {
		opts.OutboxLimit = DefaultOutboxLimit
	}
	if opts.Logger == nil {
		opts.Logger = zap.NewNop()
	}
	if opts.Metrics == nil {
		opts.Metrics = new(Metrics)
	}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		opts.Metrics.failed.Add(1)
		return nil, fmt.Errorf("begin a channel: %w", err)
	}
	c := &ServerConn{
		opts:    opts,
		socket:  newSocket(ws, serverSilence),
		out:     make(chan events.ChannelMessage, opts.OutboxLimit),
		ending:  make(chan struct{}),
		ended:   make(chan struct{}),
		waiting: make(map[string]chan *events.ConnectionResult),
	}
	if err := c.greet(r.Context()); err != nil {
		opts.Metrics.failed.Add(1)
		_ = ws.Close()
		return nil, err
	}
	opts.Metrics.connected.Add(1)
	return c, nil
}

// greet waits for the hello and answers it.
func (c *ServerConn) greet(ctx context.Context) error {
	deadline := time.Now().Add(helloTimeout)
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	hello, err := c.readHello(deadline)
	if err != nil {
		return err
	}
	welcome, reject := (*events.SessionWelcome)(nil), checkHello(hello)
	if reject == nil {
		welcome, reject = c.opts.Hello(ctx, hello)
	}
	switch {
	case reject != nil:
		return c.reject(reject)
	case welcome == nil:
		return errors.New("the hello was neither welcomed nor rejected")
	}
	if welcome.Capabilities == nil {
		copied := *welcome
		copied.Capabilities = []string{} // a list on the wire, not null
		welcome = &copied
	}
	c.hello = hello
	if err := c.writeMessage(welcome); err != nil {
		return fmt.Errorf("welcome the agent: %w", err)
	}
	return nil
}

func (c *ServerConn) readHello(deadline time.Time) (*events.SessionHello, error) {
	for {
		m, err := c.socket.readBefore(deadline)
		if err != nil {
			return nil, fmt.Errorf("wait for the agent's hello: %w", err)
		}
		switch m := m.(type) {
		case *events.SessionHello:
			return m, nil
		case *events.UnknownMessage:
			c.unknown(m)
		default:
			return nil, c.socket.broken(websocket.ClosePolicyViolation, fmt.Errorf("%s before the hello", m.Type()))
		}
	}
}

// checkHello refuses a hello that breaks a limit.
func checkHello(h *events.SessionHello) *events.SessionReject {
	bad := h.AgentID == "" || len(h.AgentID) > maxHelloText || len(h.Version) > maxHelloText || len(h.Capabilities) > maxCapabilities
	for _, capability := range h.Capabilities {
		bad = bad || len(capability) > maxHelloText
	}
	if !bad {
		return nil
	}
	return &events.SessionReject{
		Code:    events.RejectBadHello,
		Message: fmt.Sprintf("bad hello: expected an agent id, and no text of more than %d bytes or more than %d capabilities", maxHelloText, maxCapabilities),
	}
}

// reject refuses the hello. The agent closes when it has read why.
func (c *ServerConn) reject(why *events.SessionReject) error {
	c.opts.Metrics.rejected.Add(1)
	if err := c.writeMessage(why); err != nil {
		return fmt.Errorf("reject the agent: %w", err)
	}
	c.socket.sayClose(websocket.ClosePolicyViolation, why.Message)
	deadline := time.Now().Add(farewell)
	for {
		if _, err := c.socket.readBefore(deadline); err != nil {
			return &RejectError{Reject: why}
		}
	}
}

// Hello is what the agent said of itself.
func (c *ServerConn) Hello() *events.SessionHello { return c.hello }

// Done is closed when the connection has ended.
func (c *ServerConn) Done() <-chan struct{} { return c.ended }

func (c *ServerConn) unknown(m *events.UnknownMessage) {
	c.opts.Metrics.unknown.Add(1)
	c.opts.Logger.Debug("message of an unknown type", zap.String("type", m.Name))
}

func (c *ServerConn) writeMessage(m events.ChannelMessage) error {
	if answer, ok := m.(*events.TimeResponse); ok {
		stamped := *answer
		stamped.ServerTransmit = wallClock() // when it leaves, not when it was queued
		m = &stamped
	}
	wire, err := encode(m)
	if err == nil {
		err = c.socket.write(wire)
	}
	if err != nil {
		return fmt.Errorf("send %s: %w", m.Type(), err)
	}
	c.opts.Metrics.sent.Add(1)
	return nil
}
