package agent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/tailnet"
)

// tunnels takes tailnet connections and serves their streams.
type tunnels struct {
	listener *tailnet.Listener
	targets  *targets
	log      *zap.Logger
	conns    atomic.Int64
	streams  atomic.Int64
	sent     atomic.Int64 // from targets to tunnelers, bytes
	received atomic.Int64
}

func newTunnels(l *tailnet.Listener, t *targets, log *zap.Logger) *tunnels {
	if log == nil {
		log = zap.NewNop()
	}
	return &tunnels{listener: l, targets: t, log: log}
}

// The life of a session that nobody comes for: what it is when a request does
// not say, and what it is at most.
const (
	defaultSession = time.Minute
	maxSession     = 5 * time.Minute
)

// expires is the end of the wait for a tunneler by our own clock, which the
// coordinator's is ahead of by offset.
func expires(at time.Time, offset time.Duration) time.Time {
	now := time.Now()
	if at.IsZero() {
		return now.Add(defaultSession)
	}
	at = at.Add(-offset)
	if latest := now.Add(maxSession); at.After(latest) {
		return latest
	}
	return at
}

// expect prepares for the tunneler that a connection request announces; offset
// is how far the coordinator's clock is ahead.
func (t *tunnels) expect(req *events.ConnectionRequest, offset time.Duration) *events.ConnectionResult {
	fail := func(err error) *events.ConnectionResult {
		return &events.ConnectionResult{RequestID: req.RequestID, Error: err.Error()}
	}
	if req.Kind != events.ConnectionTunnel {
		return fail(errors.New("this agent makes no connections of kind " + string(req.Kind)))
	}
	peer, err := tailnet.ParseKeyHash(req.PeerKeyHash)
	if err != nil {
		return fail(err)
	}
	id, err := tailnet.NewIdentity()
	if err != nil {
		return fail(err)
	}
	err = t.listener.Expect(tailnet.Session{ID: req.SessionID, Identity: id, PeerKeyHash: peer, Expires: expires(req.Expires, offset)})
	if err != nil {
		return fail(err)
	}
	return &events.ConnectionResult{RequestID: req.RequestID, KeyHash: id.KeyHash().String(), Candidates: t.listener.Candidates()}
}

// serve accepts connections until ctx ends or the listener is closed, and
// returns when all of them have ended.
func (t *tunnels) serve(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := t.listener.Accept(ctx)
		if err != nil {
			return
		}
		t.conns.Add(1)
		wg.Go(func() {
			defer t.conns.Add(-1)
			t.serveConn(ctx, conn)
		})
	}
}

func (t *tunnels) serveConn(ctx context.Context, conn *tailnet.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel() // dials under way end with their connection
	for {
		in, err := conn.Accept(ctx)
		if err != nil {
			t.log.Debug("tunnel ended", zap.String("session", conn.Session()), zap.Error(err))
			return
		}
		t.streams.Add(1)
		wg.Go(func() {
			defer t.streams.Add(-1)
			t.serveStream(ctx, in)
		})
	}
}

func (t *tunnels) serveStream(ctx context.Context, in *tailnet.Incoming) {
	header, err := in.Header()
	if err != nil {
		return // it was refused already
	}
	conn, err := t.targets.dial(ctx, header)
	if err != nil {
		var reply *events.Reply
		if !errors.As(err, &reply) {
			reply = &events.Reply{Code: events.ReplyInternal, Text: err.Error()}
		}
		in.Refuse(reply.Code, reply.Text)
		return
	}
	defer conn.Close()
	// A target that neither sends nor takes anything would not notice that the
	// connection has ended.
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if header.Network == events.NetworkUDP {
		if flow, err := in.Flow(); err == nil {
			t.relayFlow(flow, conn)
		}
		return
	}
	if stream, err := in.Accept(); err == nil {
		t.relay(stream, conn)
	}
}

func (t *tunnels) stats() *events.AgentStats {
	return &events.AgentStats{
		Tunnels: int(t.conns.Load()), Streams: int(t.streams.Load()),
		BytesSent: t.sent.Load(), BytesReceived: t.received.Load(),
	}
}
