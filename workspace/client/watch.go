package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

const (
	// idleTimeout is how long a stream may be silent. The server sends
	// something every 15 s.
	idleTimeout = 45 * time.Second
	// handshakeTimeout bounds dialling and the upgrade to a WebSocket.
	handshakeTimeout = 10 * time.Second
	// minReconnect and maxReconnect bound the time between two attempts of a
	// stream. A server on this machine is either about to come back or gone,
	// and no crowd waits for it: maxReconnectLoopback.
	minReconnect         = 250 * time.Millisecond
	maxReconnect         = 15 * time.Second
	maxReconnectLoopback = 2 * time.Second
	// pongTimeout bounds the write of a pong.
	pongTimeout = 5 * time.Second
)

// WatchOptions are the parameters of a watch.
type WatchOptions struct {
	// Agent names the agent to watch; empty when the workspace has only one.
	Agent string
	// AfterBuildLog and AfterAgentLog are the IDs of the last log lines that
	// are not wanted again.
	AfterBuildLog int64
	AfterAgentLog int64
	// Emit is called with each event, one at a time, on the goroutine of
	// Watch: BuildUpdate, AgentUpdate, BuildLog, AgentLog, and WatchUpdate when
	// the subscription is up or has to be tried again. It must not block for
	// long, else the server gives the watch up and it starts anew.
	Emit func(events.Event)
}

// Watch subscribes to a workspace's builds, agent and logs (docs/protocol.md,
// section 1). It reconnects by itself, resumes the logs where they broke off
// and delivers each line once; a snapshot may be delivered again.
//
// It returns when trying again cannot help: an *api.Error (the workspace is
// not there, or the token is no good), an *events.WatchError (not retryable),
// the token source's error, or the context's.
func (c *Client) Watch(ctx context.Context, ref string, o WatchOptions) error {
	w := &watch{c: c, ref: ref, o: o}
	retry := c.reconnectBackoff()
	down := false
	for attempt := 1; ; attempt++ {
		connected := time.Now()
		up, err := w.once(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !mendable(err):
			return err
		case up && time.Since(connected) > retry.max:
			attempt = 1
		}
		if up || !down {
			down = true
			o.Emit(events.WatchUpdate{State: events.WatchRetrying, Err: err})
		}
		delay := retry.delay(attempt)
		c.logger.Debug("watch broke off, trying again", zap.Duration("in", delay), zap.Error(err))
		if sleep(ctx, delay) != nil {
			return ctx.Err()
		}
	}
}

func (c *Client) reconnectBackoff() backoff {
	b := backoff{min: minReconnect, max: maxReconnect, random: c.o.Random}
	if u, err := url.Parse(c.base()); err == nil && loopback(u.Hostname()) {
		b.max = maxReconnectLoopback
	}
	return b
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// mendable reports whether a new connection may fare better.
func mendable(err error) bool {
	if w := (*events.WatchError)(nil); errors.As(err, &w) {
		return w.Retryable
	}
	return transient(err)
}

// watch is what survives a reconnect.
type watch struct {
	c   *Client
	ref string
	o   WatchOptions
}

// once holds one connection until it breaks. up tells whether it stood.
func (w *watch) once(ctx context.Context) (up bool, err error) {
	conn, release, err := w.dial(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	w.o.Emit(events.WatchUpdate{State: events.WatchUp})

	broken := func(err error) error { return &UnreachableError{URL: w.c.base(), Err: err} }
	alive := func() error { return conn.SetReadDeadline(time.Now().Add(idleTimeout)) }
	conn.SetReadLimit(events.MaxWatchMessage)
	conn.SetPingHandler(func(data string) error {
		if err := alive(); err != nil {
			return err
		}
		err := conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(pongTimeout))
		if errors.Is(err, websocket.ErrCloseSent) {
			return nil
		}
		return err
	})
	for {
		if err := alive(); err != nil {
			return true, broken(err)
		}
		kind, data, err := conn.ReadMessage()
		if err != nil {
			return true, broken(err)
		}
		if kind != websocket.TextMessage {
			return true, broken(errors.New("the server sent a binary message"))
		}
		m, err := events.DecodeWatchMessage(data)
		if err != nil {
			return true, broken(err)
		}
		if m.Error != nil {
			return true, m.Error
		}
		w.emit(m)
	}
}

func (w *watch) emit(m events.WatchMessage) {
	switch {
	case m.BuildUpdate != nil:
		w.o.Emit(*m.BuildUpdate)
	case m.AgentUpdate != nil:
		w.o.Emit(*m.AgentUpdate)
	case m.BuildLog != nil && m.BuildLog.ID > w.o.AfterBuildLog:
		w.o.AfterBuildLog = m.BuildLog.ID
		w.o.Emit(events.BuildLog{Log: *m.BuildLog})
	case m.AgentLog != nil && m.AgentLog.ID > w.o.AfterAgentLog:
		w.o.AfterAgentLog = m.AgentLog.ID
		w.o.Emit(events.AgentLog{Log: *m.AgentLog})
	}
}

// dial opens the WebSocket. release closes it; so does the end of ctx, at once.
func (w *watch) dial(ctx context.Context) (conn *websocket.Conn, release func(), err error) {
	q := url.Values{}
	if w.o.Agent != "" {
		q.Set("agent_name", w.o.Agent)
	}
	setInt(q, "after_build_log", w.o.AfterBuildLog)
	setInt(q, "after_agent_log", w.o.AfterAgentLog)
	req, err := w.c.newRequest(ctx, get(q, "workspaces", w.ref, "agent-connection-watch"))
	if err != nil {
		return nil, nil, err
	}
	target := *req.URL
	target.Scheme = strings.Replace(target.Scheme, "http", "ws", 1)

	// The dialer looks at the context only until the connection stands; the
	// handshake and all reads end with it through this.
	stop := func() bool { return true }
	dialer := websocket.Dialer{
		Proxy: http.ProxyFromEnvironment, HandshakeTimeout: handshakeTimeout,
		ReadBufferSize: 4 << 10, WriteBufferSize: 512,
		NetDialContext: func(dialCtx context.Context, network, addr string) (net.Conn, error) {
			nc, err := w.c.o.DialContext(dialCtx, network, addr)
			if err == nil {
				stop = context.AfterFunc(ctx, func() { nc.Close() })
			}
			return nc, err
		},
	}
	req.Header.Del("Accept")
	conn, resp, err := dialer.DialContext(ctx, target.String(), req.Header)
	if resp != nil {
		defer resp.Body.Close()
	}
	if err != nil {
		stop()
		if errors.Is(err, websocket.ErrBadHandshake) && resp != nil {
			return nil, nil, errorFrom(resp)
		}
		return nil, nil, transportError(ctx, w.c.base(), err)
	}
	return conn, func() {
		stop()
		conn.Close()
	}, nil
}
