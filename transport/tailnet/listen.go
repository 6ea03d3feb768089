package tailnet

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/tunneler/tunneler/events"
)

const (
	// DefaultMaxHandshakes is how many handshakes a listener has under way.
	DefaultMaxHandshakes = 256

	// Up to this rate, a handshake need not prove its source address first,
	// which would cost it a round trip. Above, it is answered with a Retry
	// (RFC 9000, section 8.1.2): a flood from forged addresses then costs a
	// small packet each, no state and no public-key work.
	unprovenRate  = 50 // a second
	unprovenBurst = 100

	// claimedQueue is how many connections wait for Accept.
	claimedQueue = 16
)

// ListenConfig says where an agent can be reached and what it bears.
type ListenConfig struct {
	// Addrs are UDP addresses to listen at, with port 0 for any. One with no
	// host takes both families; IPv4 and IPv6 loopback are two addresses.
	Addrs []string
	// PacketConns carry packets besides those sockets. They remain their
	// owner's to close, which must not happen before Close has returned.
	PacketConns []net.PacketConn
	// MaxSessions, MaxHandshakes and MaxStreams are limits, the last for each
	// connection; zero means the default.
	MaxSessions, MaxHandshakes, MaxStreams int
	// Resume is how long after the loss of its connection a session may be
	// connected to anew; zero means DefaultResume.
	Resume time.Duration
	// StatelessResetKey lets an agent that was killed tell the peers of its
	// former life at once that it is a new one, if it listens at the same
	// port with the same key. Nil makes a key for this process.
	StatelessResetKey *[32]byte
	// Health says how the tunnelers' life is watched.
	Health Health
	// Logger is for refused peers; nil logs nothing.
	Logger *zap.Logger
	// Metrics counts; nil does not.
	Metrics *Metrics
}

// Listener takes the tailnet connections of one agent: one QUIC transport on
// one socket, or one for each socket, for all of its tunnelers.
type Listener struct {
	conf       ListenConfig
	sessions   sessionTable
	unproven   *rate.Limiter
	handshakes atomic.Int64

	transports []*quic.Transport
	sockets    []*directSocket // those that are ours to close
	listeners  []*quic.Listener
	bound      []netip.AddrPort

	claimed chan *Conn
	// closing ends when Close begins or a socket fails, with the reason.
	closing   context.Context
	close     context.CancelCauseFunc
	wg        sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

// Listen opens the sockets and begins to take the connections of sessions that
// Expect announces.
func Listen(conf ListenConfig) (*Listener, error) {
	if len(conf.Addrs) == 0 && len(conf.PacketConns) == 0 {
		return nil, errors.New("listen needs an address")
	}
	if conf.MaxSessions <= 0 {
		conf.MaxSessions = DefaultMaxSessions
	}
	if conf.MaxHandshakes <= 0 {
		conf.MaxHandshakes = DefaultMaxHandshakes
	}
	if conf.MaxStreams <= 0 {
		conf.MaxStreams = DefaultMaxStreams
	}
	if conf.Resume <= 0 {
		conf.Resume = DefaultResume
	}
	if conf.Logger == nil {
		conf.Logger = zap.NewNop()
	}
	if conf.StatelessResetKey == nil {
		conf.StatelessResetKey = new([32]byte)
		_, _ = rand.Read(conf.StatelessResetKey[:]) // never fails (documented)
	}
	l := &Listener{
		conf: conf,
		sessions: sessionTable{
			limit: conf.MaxSessions, resume: conf.Resume,
			logger: conf.Logger, metrics: conf.Metrics,
			entries: make(map[string]*session),
		},
		unproven: rate.NewLimiter(unprovenRate, unprovenBurst),
		claimed:  make(chan *Conn, claimedQueue),
	}
	l.closing, l.close = context.WithCancelCause(context.Background())
	if err := l.listen(); err != nil {
		_ = l.Close(context.Background())
		return nil, err
	}
	return l, nil
}

func (l *Listener) listen() error {
	for _, addr := range l.conf.Addrs {
		socket, err := listenUDP(addr, l.conf.Metrics)
		if err != nil {
			return fmt.Errorf("listen at %s: %w", addr, err)
		}
		socket.lenient.Store(true)
		l.sockets = append(l.sockets, socket)
		if err := l.serve(socket); err != nil {
			return fmt.Errorf("listen at %s: %w", addr, err)
		}
	}
	for _, conn := range l.conf.PacketConns {
		if err := l.serve(conn); err != nil {
			return fmt.Errorf("listen at %s: %w", conn.LocalAddr(), err)
		}
	}
	return nil
}

func (l *Listener) serve(conn net.PacketConn) error {
	transport := &quic.Transport{
		Conn:                             conn,
		ConnectionIDLength:               connIDLength,
		StatelessResetKey:                (*quic.StatelessResetKey)(l.conf.StatelessResetKey),
		DisableVersionNegotiationPackets: true,
		VerifySourceAddress:              l.mustProveAddress,
		ConnContext:                      l.admit,
	}
	l.transports = append(l.transports, transport)
	tlsConf := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{ALPN}, GetConfigForClient: l.sessions.configFor}
	listener, err := transport.Listen(tlsConf, quicConfig(l.conf.MaxStreams))
	if err != nil {
		return err
	}
	l.listeners = append(l.listeners, listener)
	if addr, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil {
		l.bound = append(l.bound, addr)
	}
	l.wg.Go(func() { l.accept(listener) })
	return nil
}

// Expect announces a session, so that its tunneler is let in until the session
// expires. A session of that id that is there already is replaced, and its
// connection is closed.
func (l *Listener) Expect(s Session) error {
	replaced, err := l.sessions.expect(s)
	if replaced != nil {
		l.replace(replaced)
	}
	return err
}

func (l *Listener) replace(c *Conn) {
	l.conf.Metrics.add(ConnsReplaced)
	_ = c.CloseWithReason(events.CloseReplaced, "the tunneler connects anew")
}

// Forget ends a session. Its connection, if it has one, is closed.
func (l *Listener) Forget(id string) {
	if c := l.sessions.forget(id); c != nil {
		_ = c.CloseWithReason(events.CloseUnauthorized, "the session was withdrawn")
	}
}

// Accept waits for the next tunneler to arrive. The connection is the caller's
// to serve and to close. The error is ErrListenerClosed, ctx's, or that of a
// socket that failed.
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	select {
	case c := <-l.claimed:
		c.served.Store(true)
		return c, nil
	case <-l.closing.Done():
		return nil, context.Cause(l.closing)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Addrs are the local addresses of the sockets.
func (l *Listener) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(l.listeners))
	for i, listener := range l.listeners {
		addrs[i] = listener.Addr()
	}
	return addrs
}

// Candidates are the addresses at which a peer may try to reach the listener,
// fit for DialConfig.Candidates. A socket for all of the host's addresses
// stands for each of them but loopback; they are looked up anew in each call.
func (l *Listener) Candidates() []string {
	host, err := hostAddrs()
	if err != nil {
		l.conf.Logger.Debug("cannot list the host's addresses", zap.Error(err))
	}
	return candidatesOf(l.bound, host)
}

// leaveReason is what peers are told when an agent leaves.
const leaveReason = "the agent is going away"

// drainGrace is the drain of a Close whose context has no deadline.
const drainGrace = 30 * time.Second

// Close takes no new connections or streams, lets the streams in flight finish
// until ctx ends, but no longer than its deadline or 30 s, closes everything,
// and waits for that. The error says that streams were cut off.
func (l *Listener) Close(ctx context.Context) error {
	l.closeOnce.Do(func() { l.closeErr = l.shutdown(ctx) })
	return l.closeErr
}

func (l *Listener) shutdown(ctx context.Context) error {
	l.close(ErrListenerClosed)
	conns := l.sessions.close()
	for _, listener := range l.listeners {
		_ = listener.Close() // always nil
	}
	grace := drainGrace
	if deadline, ok := ctx.Deadline(); ok {
		grace = max(time.Until(deadline), 0)
	}
	cut := make([]error, len(conns))
	var draining sync.WaitGroup
	for i, c := range conns {
		draining.Go(func() {
			if !c.served.Load() { // and never will be, so nothing would finish
				_ = c.CloseWithReason(events.CloseGoingAway, leaveReason)
				return
			}
			// How the connection ended otherwise is none of the caller's business.
			if err := c.Drain(ctx, grace, leaveReason); errors.Is(err, ErrCutOff) || ctx.Err() != nil {
				cut[i] = err
			}
		})
	}
	draining.Wait()
	l.wg.Wait()
	for _, transport := range l.transports {
		_ = transport.Close()
	}
	for _, socket := range l.sockets {
		_ = socket.Close()
	}
	return errors.Join(cut...)
}
