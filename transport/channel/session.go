package channel

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

// errLeft is the end of a session that the client has left in good order.
var errLeft = errors.New("the client has left")

// session is one connection of a client, from the dial to its end.
type session struct {
	client *Client
	// owner is the context of Run, which outlives the session.
	owner  context.Context //nolint:containedctx // the session is one call
	socket *socket
	// since is when the server's welcome came; zero if it never did.
	since time.Time
}

// run connects and serves the connection until it ends; the error says why.
// refused asks for another token than the last.
func (s *session) run(ctx context.Context, refused bool) error {
	c := s.client
	s.owner = ctx
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	welcome, err := s.establish(ctx, &wg, refused)
	if err != nil {
		c.opts.Metrics.failed.Add(1)
		return err
	}
	s.since = time.Now()
	c.opts.Metrics.connected.Add(1)
	c.out.rewind(welcome.LogsStored)
	c.connected.Store(true)
	defer c.connected.Store(false)
	c.opts.OnState(State{Connected: true, Welcome: welcome})

	written := make(chan error, 1)
	wg.Go(func() {
		err := s.write(ctx)
		written <- err
		if err != nil && !errors.Is(err, errLeft) {
			_ = s.socket.ws.Close() // the reader ends with it
		}
	})
	err = s.read(ctx)
	select {
	case why := <-written:
		if why != nil { // the reader's error is only what came of it
			err = why
		}
	default:
	}
	if !errors.Is(err, errLeft) {
		c.opts.Metrics.lost.Add(1)
	}
	return err
}

// establish connects and says hello. Neither outlasts ctx or a client that is to
// leave. From then on the connection is closed when ctx ends.
func (s *session) establish(ctx context.Context, wg *sync.WaitGroup, refused bool) (*events.SessionWelcome, error) {
	dialling, established := context.WithCancel(ctx)
	defer established()
	stop := context.AfterFunc(s.client.leaving, established)
	defer stop()
	ws, err := s.client.dial(dialling, refused)
	if err != nil {
		return nil, err
	}
	s.socket = newSocket(ws, clientSilence)
	abandon := context.AfterFunc(dialling, func() { _ = ws.Close() })
	defer abandon()
	wg.Go(func() { s.end(ctx) })
	return s.hello()
}

// end closes the connection when ctx ends, or when the client was to leave and
// the other side has had its time to answer the goodbye.
func (s *session) end(ctx context.Context) {
	defer s.socket.ws.Close()
	select {
	case <-ctx.Done():
		if s.owner.Err() != nil { // or else the connection is lost anyway
			s.socket.sayClose(websocket.CloseGoingAway, "")
		}
		return
	case <-s.client.leaving.Done():
	}
	t := time.NewTimer(farewell)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// hello introduces the client and waits for the welcome.
func (s *session) hello() (*events.SessionWelcome, error) {
	c := s.client
	wire, err := encode(&c.opts.Hello)
	if err != nil {
		return nil, events.Permanent(err)
	}
	if err := s.socket.write(wire); err != nil {
		return nil, fmt.Errorf("say hello: %w", err)
	}
	deadline := time.Now().Add(helloTimeout)
	for {
		m, err := s.socket.readBefore(deadline)
		if err != nil {
			return nil, fmt.Errorf("wait for the server's welcome: %w", err)
		}
		switch m := m.(type) {
		case *events.SessionWelcome:
			return m, nil
		case *events.SessionReject:
			c.opts.Metrics.rejected.Add(1)
			return nil, &RejectError{Reject: m}
		case *events.UnknownMessage:
			c.unknown(m)
		default:
			return nil, s.socket.broken(websocket.ClosePolicyViolation, fmt.Errorf("%s before the welcome", m.Type()))
		}
	}
}

// write sends what the outbox holds, and what is asked on each connect, until
// ctx ends or the client is to leave.
func (s *session) write(ctx context.Context) error {
	c := s.client
	for _, m := range []events.ChannelMessage{&events.TimeRequest{ClientTransmit: wallClock()}, &events.OrgInfoRequest{}} {
		wire, err := encode(m)
		if err == nil {
			err = s.socket.write(wire)
		}
		if err != nil {
			return fmt.Errorf("send %s: %w", m.Type(), err)
		}
		c.opts.Metrics.sent.Add(1)
	}
	for {
		if c.leaving.Err() != nil {
			// The answer, which the reader takes, shows that the other side has
			// read everything before.
			s.socket.sayClose(websocket.CloseNormalClosure, "")
			return errLeft
		}
		if f, ok := c.out.take(); ok {
			err := s.socket.write(f.wire)
			c.out.wrote(f, err)
			if err != nil {
				return fmt.Errorf("send %s: %w", f.msg.Type(), err)
			}
			c.opts.Metrics.sent.Add(1)
			if f.again {
				c.opts.Metrics.resent.Add(1)
			}
			continue
		}
		select {
		case <-c.out.wake:
		case <-c.leaving.Done():
		case <-ctx.Done():
			return nil
		}
	}
}

// read handles what comes in until the connection ends.
func (s *session) read(ctx context.Context) error {
	c := s.client
	for {
		m, err := s.socket.read()
		arrived := wallClock()
		if err != nil {
			if c.leaving.Err() != nil {
				return errLeft
			}
			return fmt.Errorf("channel lost: %w", err)
		}
		c.opts.Metrics.received.Add(1)
		switch m := m.(type) {
		case *events.TimeResponse:
			if offset, ok := m.Offset(arrived); ok {
				c.offset.Store(&offset)
			}
		case *events.OrgInfoResponse:
			if m.OrganizationID != "" {
				c.org.Store(&m.OrganizationID)
			}
		case *events.AgentLogsAck:
			c.out.acknowledged(m.Seq)
			c.opts.Handler(ctx, m)
		case *events.ConnectionRequest:
			c.opts.Handler(ctx, m)
		case *events.SessionReject:
			c.opts.Metrics.rejected.Add(1)
			return &RejectError{Reject: m}
		case *events.UnknownMessage:
			c.unknown(m)
		default:
			c.opts.Metrics.unexpected.Add(1)
			c.opts.Logger.Debug("the server sent what only an agent sends", zap.String("type", m.Type()))
		}
	}
}

func (c *Client) unknown(m *events.UnknownMessage) {
	c.opts.Metrics.unknown.Add(1)
	c.opts.Logger.Debug("message of an unknown type", zap.String("type", m.Name))
}

// wallClock is the time as the other side may compare it with its own.
func wallClock() time.Time { return time.Now().UTC().Round(0) }
