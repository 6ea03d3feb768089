package tailnet

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

// Conn is one end of a tailnet connection. Its methods may be called from any
// goroutine.
type Conn struct {
	q          *quic.Conn
	client     bool
	session    string
	maxStreams int
	logger     *zap.Logger
	metrics    *Metrics
	onPath     func(events.PathUpdate)
	cleanup    func(*CloseError)

	control control
	health  *monitor
	flows   flowTable

	// served is set once an agent's owner has the connection.
	served atomic.Bool

	// confirmed is closed by the first pong.
	confirmed chan struct{}

	// draining ends when either side has announced that it goes away.
	draining context.Context
	drain    context.CancelFunc

	mu      sync.Mutex
	streams map[*Stream]struct{}
	// seen counts the streams opened or accepted so far; opening, those of
	// which only the beginning is there.
	seen, opening uint64
	leaving       drainState

	// closing is why this side closed, once it has.
	closing atomic.Pointer[CloseError]
	// farewell is the peer's Close frame, should nothing else come of it.
	farewell atomic.Pointer[CloseError]

	wg    sync.WaitGroup
	ended bool // no goroutine may be added any more
	done  chan struct{}
	err   *CloseError
}

type connConfig struct {
	client     bool
	session    string
	maxStreams int
	health     Health
	// unreachable asks the peer's host whether the peer is gone; nil for a
	// path where that cannot be asked.
	unreachable func(context.Context) bool
	onPath      func(events.PathUpdate)
	// cleanup runs once the connection has ended, before Done says so.
	cleanup func(*CloseError)
	logger  *zap.Logger
	metrics *Metrics
}

// newConn makes a Conn of a QUIC connection and its control stream, of which
// the first byte has been sent or read already. It does nothing before start.
func newConn(q *quic.Conn, ctl *quic.Stream, conf connConfig) *Conn {
	c := &Conn{
		q:          q,
		client:     conf.client,
		session:    conf.session,
		maxStreams: conf.maxStreams,
		logger:     conf.logger.With(zap.String("session", conf.session)),
		metrics:    conf.metrics,
		onPath:     conf.onPath,
		cleanup:    conf.cleanup,
		confirmed:  make(chan struct{}),
		streams:    make(map[*Stream]struct{}),
		done:       make(chan struct{}),
	}
	c.control = control{q: ctl, metrics: conf.metrics}
	c.flows = flowTable{conn: c}
	c.leaving.drained = make(chan struct{})
	c.draining, c.drain = context.WithCancel(context.Background())
	c.health = newMonitor(c, conf.health, conf.unreachable)
	return c
}

// start begins to serve the connection. From here on cleanup will be called.
func (c *Conn) start() {
	// Pings and drains must not queue up behind a bulk transfer.
	c.control.q.SetPriority(0, false)
	c.spawn(c.health.run)
	go c.run()
}

// run lives as long as the connection. It reads the control stream, and clears
// up once the connection has ended, however it did.
func (c *Conn) run() {
	err := c.readControl()
	// An error of the connection says that it has ended; any other, that the
	// peer has broken the control stream.
	if !errors.Is(err, net.ErrClosed) {
		c.close(&CloseError{Code: events.CloseProtocol, Reason: "control stream: " + err.Error(), Cause: err})
	}
	<-c.q.Context().Done()
	c.drain()
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.wg.Wait()
	c.err = c.closeError(context.Cause(c.q.Context()))
	if bye := c.farewell.Load(); bye != nil && c.err.Code == events.CloseLost {
		c.err = bye
	}
	if c.err.Code == events.CloseLost {
		c.metrics.add(ConnsLost)
	}
	c.logger.Debug("connection ended", zap.Error(c.err))
	if c.cleanup != nil {
		c.cleanup(c.err)
	}
	close(c.done)
}

// spawn runs f in a goroutine that the connection's end waits for, unless the
// connection has ended.
func (c *Conn) spawn(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.wg.Go(f)
	}
}

// close ends the connection now, for the given reason unless it has one
// already. It does not wait for run.
func (c *Conn) close(why *CloseError) {
	if len(why.Reason) > events.MaxReplyText {
		why.Reason = why.Reason[:events.MaxReplyText]
	}
	if c.closing.CompareAndSwap(nil, why) {
		// CONNECTION_CLOSE says the same, but it is sent once and may be lost.
		c.control.send(events.Close{Code: why.Code, Reason: why.Reason})
		_ = c.q.CloseWithError(quic.ApplicationErrorCode(why.Code), why.Reason) // always nil
	}
}

// Close ends the connection in good order and waits until everything that
// belongs to it has ended. Streams that are still open are reset; what was
// written to streams that are closed is given a second to be taken in by the
// peer. It returns nil, also when the connection had ended before.
func (c *Conn) Close() error {
	_ = c.shutdown(context.Background(), &CloseError{Code: events.CloseNormal}, linger, true)
	return nil
}

// CloseWithReason ends the connection at once, which cuts off every stream,
// and waits as Close does. The peer learns code and reason; of a long reason,
// its first 512 bytes.
func (c *Conn) CloseWithReason(code events.CloseCode, reason string) error {
	c.close(&CloseError{Code: code, Reason: reason})
	<-c.done
	return nil
}

// Done is closed when the connection and everything that belongs to it has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err says how the connection ended: a *CloseError, or nil while it has not.
func (c *Conn) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Wait waits until the connection has ended and returns Err.
func (c *Conn) Wait() error {
	<-c.done
	return c.err
}

// Session is the id of the connection's session.
func (c *Conn) Session() string { return c.session }

// LocalAddr is the local address of the path in use.
func (c *Conn) LocalAddr() net.Addr { return c.q.LocalAddr() }

// RemoteAddr is the peer's address on the path in use.
func (c *Conn) RemoteAddr() net.Addr { return c.q.RemoteAddr() }

// Path is what carries the connection now, and how well.
func (c *Conn) Path() events.PathUpdate {
	rtt, degraded := c.health.state()
	return events.PathUpdate{Kind: events.PathDirect, Addr: c.q.RemoteAddr().String(), RTT: rtt, Degraded: degraded}
}

// Stats are figures of one connection.
type Stats struct {
	// RTT is the smoothed round trip of pings, through both control streams;
	// zero until the first pong. MinRTT is the least round trip of a packet.
	RTT, MinRTT time.Duration
	// Bytes and packets on the path, without UDP's and IP's own headers.
	BytesSent, BytesReceived, BytesLost       uint64
	PacketsSent, PacketsReceived, PacketsLost uint64
	// CongestionWindow is how many bytes may be on their way to the peer.
	CongestionWindow uint64
	// Streams are open now; StreamsSeen counts those and all before.
	Streams     int
	StreamsSeen uint64
}

// Stats reads the connection's figures.
func (c *Conn) Stats() Stats {
	q := c.q.ConnectionStats()
	rtt, _ := c.health.state()
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{
		RTT: rtt, MinRTT: q.MinRTT,
		BytesSent: q.BytesSent, BytesReceived: q.BytesReceived, BytesLost: q.BytesLost,
		PacketsSent: q.PacketsSent, PacketsReceived: q.PacketsReceived, PacketsLost: q.PacketsLost,
		CongestionWindow: q.CongestionWindow,
		Streams:          len(c.streams), StreamsSeen: c.seen,
	}
}
