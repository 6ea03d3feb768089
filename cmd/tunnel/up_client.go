package main

import (
	"context"
	"errors"
	"net"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/app/forward"
	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/fsm"
	"github.com/tunneler/tunneler/transport/tailnet"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/client"
)

// tunnelClient is the world of one tunneler: the coordinator's API, the
// tailnet, and port forwards as the application.
type tunnelClient struct {
	api       *client.Client
	workspace string // id
	agent     string // name; empty when there is only one
	forwards  []forward.Spec
	log       *zap.Logger
	// bound is told what the application listens on.
	bound func([]forward.Bound)
	// problem is told what a user should know of a forward.
	problem func(forward.Problem)
}

var _ fsm.Client = (*tunnelClient)(nil)

// Watch implements fsm.Client.
func (c *tunnelClient) Watch(ctx context.Context, emit func(events.Event)) error {
	return c.api.Watch(ctx, c.workspace, client.WatchOptions{Agent: c.agent, Emit: emit})
}

// StartWorkspace implements fsm.Client.
func (c *tunnelClient) StartWorkspace(ctx context.Context) events.StartResult {
	b, conflict, err := c.api.StartWorkspace(ctx, c.workspace)
	return events.StartResult{Build: b.Number, Conflict: conflict, Err: err}
}

// Dial implements fsm.Client: it asks the coordinator for a session, with a
// key made for it, and connects to where the agent says that it can be reached.
func (c *tunnelClient) Dial(ctx context.Context, _ fsm.DialRequest, emit func(events.Event)) (fsm.Conn, error) {
	id, err := tailnet.NewIdentity()
	if err != nil {
		return nil, err
	}
	s, err := c.api.Connect(ctx, c.workspace, api.Connect{Agent: c.agent, KeyHash: id.KeyHash().String()})
	if err != nil {
		var e *api.Error
		if errors.As(err, &e) && (e.Code == api.CodeUnauthorized || e.Code == api.CodeForbidden) {
			err = events.Permanent(err)
		}
		return nil, err
	}
	peer, err := tailnet.ParseKeyHash(s.KeyHash)
	if err != nil {
		return nil, err
	}
	conn, err := tailnet.Dial(ctx, tailnet.DialConfig{
		SessionID: s.ID, Identity: id, PeerKeyHash: peer, Candidates: s.Candidates,
		OnPath: func(p events.PathUpdate) { emit(p) },
		Logger: c.log,
	})
	if err != nil {
		return nil, err
	}
	emit(conn.Path()) // from here on OnPath tells of changes
	return conn, nil
}

// StartApp implements fsm.Client.
func (c *tunnelClient) StartApp(ctx context.Context, conn fsm.Conn) (fsm.App, error) {
	app, err := forward.Start(ctx, forward.Options{
		Forwards:  c.forwards,
		Explain:   explainReply,
		Gone:      gone,
		OnProblem: c.problem,
		Log:       c.log,
	})
	if err != nil {
		return nil, err
	}
	f := forwards{app}
	f.Attach(conn)
	c.bound(app.Forwards())
	return f, nil
}

// gone: the whole tunnel has gone, and not one target.
func gone(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, tailnet.ErrDraining)
}

// explainReply says what the agent's refusal means.
func explainReply(err error) (string, bool) {
	var r *events.Reply
	if errors.As(err, &r) {
		return r.Error(), true
	}
	return "", false
}

// forwards is the port forwards as an fsm.App.
type forwards struct{ *forward.App }

// Attach implements fsm.App.
func (f forwards) Attach(conn fsm.Conn) { f.App.Attach(dialer{conn.(*tailnet.Conn)}) }

// Shutdown implements fsm.App.
func (f forwards) Shutdown(ctx context.Context) error {
	stop := context.AfterFunc(ctx, f.App.Abort)
	defer stop()
	return f.App.Close()
}

// Close implements fsm.App: at once.
func (f forwards) Close() error {
	f.App.Abort()
	return f.App.Close()
}

// Err implements fsm.App.
func (f forwards) Err() error { return f.Wait() }

// dialer opens streams to the workspace. A stream is there at once: its header
// costs no round trip, and a refusal comes with the first read.
type dialer struct{ conn *tailnet.Conn }

// DialContext implements forward.Dialer.
func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	kind, err := events.ParseNetwork(network)
	if err != nil {
		return nil, err
	}
	s, err := d.conn.Open(ctx, events.OpenHeader{Network: kind, Target: address})
	if err != nil {
		return nil, err
	}
	return s, nil
}
