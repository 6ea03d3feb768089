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

// Run serves the connection until it ends and returns nil if either side has
// closed it in good order, also because ctx ended. It can be called once, and
// returns ErrClosed after a Close.
//
// handler is called, one message after the other, with what the agent says and
// the connection does not answer itself; its ctx ends with the connection. While
// it takes its time, nothing else of the agent is read, which is how it holds
// up an agent that sends too much.
func (c *ServerConn) Run(ctx context.Context, handler func(ctx context.Context, m events.ChannelMessage)) error {
	c.mu.Lock()
	again := c.running
	c.running = true
	c.mu.Unlock()
	switch {
	case again && c.isEnding():
		return ErrClosed
	case again:
		return errors.New("a connection runs only once")
	}
	defer c.end()
	stop := context.AfterFunc(ctx, func() { c.Close(websocket.CloseGoingAway, "") })
	defer stop()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer c.socket.ws.Close() // before the wait: a write may be under way
	read := make(chan struct{})
	written := make(chan error, 1)
	wg.Go(func() {
		err := c.write(read, cancel)
		written <- err
		if err != nil {
			_ = c.socket.ws.Close() // the reader ends with it
		}
	})
	err := c.read(ctx, handler)
	close(read)
	_ = c.socket.ws.Close()
	if why := <-written; why != nil {
		err = why
	}
	if c.isEnding() || websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway) {
		return nil
	}
	c.opts.Metrics.lost.Add(1)
	return fmt.Errorf("channel lost: %w", err)
}

// write sends what is queued and pings until the reader has ended or the
// connection is to be closed. cut interrupts a handler.
func (c *ServerConn) write(read <-chan struct{}, cut context.CancelFunc) error {
	ping := time.NewTicker(pingInterval)
	defer ping.Stop()
	for {
		select {
		case m := <-c.out:
			if err := c.writeMessage(m); err != nil {
				return unlessEnded(err, read)
			}
		case <-ping.C:
			if err := c.socket.ping(); err != nil {
				return unlessEnded(fmt.Errorf("ping: %w", err), read)
			}
		case <-read:
			return nil
		case <-c.ending:
			c.sayGoodbye(read, cut)
			return nil
		}
	}
}

// unlessEnded is the writer's error, unless it is only what comes of the end of
// the reader.
func unlessEnded(err error, read <-chan struct{}) error {
	select {
	case <-read:
		return nil
	default:
		return err
	}
}

// sayGoodbye sends what was queued before the close, and the close, and gives
// the agent time to answer, which ends the reader.
func (c *ServerConn) sayGoodbye(read <-chan struct{}, cut context.CancelFunc) {
	t := time.AfterFunc(farewell, func() {
		cut()
		_ = c.socket.ws.Close()
	})
	defer t.Stop()
	for {
		select {
		case m := <-c.out:
			if c.writeMessage(m) != nil {
				return
			}
			continue
		default:
		}
		break
	}
	if c.lastWord != nil && c.writeMessage(c.lastWord) != nil {
		return
	}
	c.socket.sayClose(c.closeCode, c.closeReason)
	<-read
}

// read handles what comes in until the connection ends.
func (c *ServerConn) read(ctx context.Context, handler func(context.Context, events.ChannelMessage)) error {
	for {
		m, err := c.socket.read()
		if err != nil {
			if errors.Is(err, ErrSilent) {
				c.socket.sayClose(websocket.CloseGoingAway, "no sign of life")
			}
			return err
		}
		c.opts.Metrics.received.Add(1)
		switch m := m.(type) {
		case *events.TimeRequest:
			c.trySend(&events.TimeResponse{ClientTransmit: m.ClientTransmit, ServerReceive: wallClock()})
		case *events.OrgInfoRequest:
			c.trySend(&events.OrgInfoResponse{OrganizationID: c.opts.Organization})
		case *events.ConnectionResult:
			c.answer(m)
		case *events.AgentLifecycle, *events.AgentLogs, *events.AgentStats:
			handler(ctx, m)
		case *events.UnknownMessage:
			c.unknown(m)
		default:
			c.opts.Metrics.unexpected.Add(1)
			c.opts.Logger.Debug("the agent sent what only a coordinator sends", zap.String("type", m.Type()))
		}
	}
}

// trySend queues an answer that the agent can do without: it asks again on its
// next connect.
func (c *ServerConn) trySend(m events.ChannelMessage) {
	select {
	case c.out <- m:
	default:
		c.opts.Metrics.dropped.Add(1)
	}
}

// Send gives m to be sent to the agent. It waits for room until ctx or the
// connection ends; what was not sent by then is lost with the connection.
func (c *ServerConn) Send(ctx context.Context, m events.ChannelMessage) error {
	if _, err := encode(m); err != nil {
		return err // found here it is the caller's, later it would end the connection
	}
	select {
	case <-c.ending:
		return ErrClosed
	case <-c.ended:
		return ErrClosed
	default:
	}
	select {
	case c.out <- m:
		return nil
	case <-c.ending:
		return ErrClosed
	case <-c.ended:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Reject ends a session that was welcome: the agent is told why, and whether to
// come back. Otherwise it is as Close.
func (c *ServerConn) Reject(why *events.SessionReject) {
	c.opts.Metrics.rejected.Add(1)
	c.close(websocket.ClosePolicyViolation, why.Message, why)
}

// Close ends the connection with a close frame of that code and reason
// (RFC 6455, section 7.4), after what was given to Send before. It does not
// wait: Run returns when the connection has ended, within seconds. A connection
// that does not run is closed at once.
func (c *ServerConn) Close(code int, reason string) { c.close(code, reason, nil) }

func (c *ServerConn) close(code int, reason string, lastWord events.ChannelMessage) {
	c.endOnce.Do(func() {
		c.closeCode, c.closeReason, c.lastWord = code, reason, lastWord
		close(c.ending)
	})
	c.mu.Lock()
	running := c.running
	c.running = true // from now on there is nothing to run
	c.mu.Unlock()
	if !running {
		c.sayGoodbye(closedChan, func() {})
		_ = c.socket.ws.Close()
		c.end()
	}
}

// closedChan is the end of a reader that never began.
var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (c *ServerConn) isEnding() bool {
	select {
	case <-c.ending:
		return true
	default:
		return false
	}
}

// end tells everybody that the connection has ended.
func (c *ServerConn) end() { c.endedOnce.Do(func() { close(c.ended) }) }
