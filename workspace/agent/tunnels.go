package agent

import (
	"context"
	"errors"
	"io"
	"net"
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

// expect prepares for the tunneler that a connection request announces.
func (t *tunnels) expect(req *events.ConnectionRequest) *events.ConnectionResult {
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
	err = t.listener.Expect(tailnet.Session{ID: req.SessionID, Identity: id, PeerKeyHash: peer, Expires: req.Expires})
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
	if header.Network == events.NetworkUDP {
		if flow, err := in.Flow(); err == nil {
			t.relayFlow(flow, conn)
			return
		}
		conn.Close()
		return
	}
	stream, err := in.Accept()
	if err != nil {
		conn.Close()
		return
	}
	t.relay(stream, conn)
}

// relay carries both directions, with the end of each as it comes and a reset
// as a reset.
func (t *tunnels) relay(stream *tailnet.Stream, conn net.Conn) {
	var once sync.Once
	reset := func() {
		once.Do(func() {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			conn.Close()
			stream.Reset(events.CloseNormal)
		})
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		n, err := copyBuffered(conn, stream)
		t.received.Add(n)
		if err == nil {
			err = closeWrite(conn)
		}
		if err != nil {
			reset()
		}
	})
	n, err := copyBuffered(stream, conn)
	t.sent.Add(n)
	if err == nil {
		err = stream.CloseWrite()
	}
	if err != nil {
		reset()
	}
	wg.Wait()
	conn.Close()
	stream.Close()
}

// closeWrite ends the direction towards the target. One that is gone already
// has no more use for it.
func closeWrite(conn net.Conn) error {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return conn.Close()
	}
	if err := half.CloseWrite(); err != nil && !errors.Is(err, net.ErrClosed) && !isNotConnected(err) {
		return err
	}
	return nil
}

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// copyBuffered is io.Copy through a pooled buffer; what the ends offer to do
// without one they allocate for themselves, so it is not asked for.
func copyBuffered(dst io.Writer, src io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, *buf)
}

// udpIdle is how long a flow without a packet is kept, as NATs do.
const udpIdle = 2 * time.Minute

// maxPacket is the largest UDP payload.
const maxPacket = 65535

// relayFlow carries packets until either side ends or both fall silent.
func (t *tunnels) relayFlow(flow *tailnet.Flow, conn net.Conn) {
	var last atomic.Int64
	last.Store(time.Now().UnixNano())
	var wg sync.WaitGroup
	carry := func(dst, src net.Conn, count *atomic.Int64) {
		defer dst.Close()
		defer src.Close()
		buf := make([]byte, maxPacket)
		for {
			_ = src.SetReadDeadline(time.Now().Add(udpIdle))
			n, err := src.Read(buf)
			if err != nil {
				var timeout net.Error
				if errors.As(err, &timeout) && timeout.Timeout() && time.Since(time.Unix(0, last.Load())) < udpIdle {
					continue // the other direction is alive
				}
				if isTransient(err) {
					continue
				}
				return
			}
			last.Store(time.Now().UnixNano())
			count.Add(int64(n))
			if _, err := dst.Write(buf[:n]); err != nil && !isTransient(err) && !isTooLarge(err) {
				return
			}
		}
	}
	wg.Go(func() { carry(conn, flow, &t.received) })
	carry(flow, conn, &t.sent)
	wg.Wait()
}

// isTooLarge: the packet does not fit a datagram; it is dropped, as UDP may.
func isTooLarge(err error) bool {
	var e *tailnet.DatagramTooLargeError
	return errors.As(err, &e)
}

func (t *tunnels) stats() *events.AgentStats {
	return &events.AgentStats{
		Tunnels: int(t.conns.Load()), Streams: int(t.streams.Load()),
		BytesSent: t.sent.Load(), BytesReceived: t.received.Load(),
	}
}
