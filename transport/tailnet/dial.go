package tailnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

// raceStagger is the time that a candidate is given before the next one is
// tried beside it, as in RFC 8305, section 8, which allows 100 ms and more.
const raceStagger = 100 * time.Millisecond

// DialConfig says which session to dial and where.
type DialConfig struct {
	// SessionID is the session's id. It travels as the TLS server name, in
	// the clear: it selects the session and proves nothing.
	SessionID string
	// Identity is our key for this session.
	Identity *Identity
	// PeerKeyHash is the hash of the agent's key for this session.
	PeerKeyHash KeyHash
	// Candidates are where the agent may be reached, IP address and port
	// each, best first; at most events.MaxCandidates are tried.
	Candidates []string
	// PacketConn carries the packets. Nil opens a UDP socket that ends with
	// the connection; one that is given remains its owner's to close, which
	// must not happen before the connection has ended.
	PacketConn net.PacketConn
	// Health says how the agent's life is watched.
	Health Health
	// OnPath is told when the path has changed or its worth has; the path
	// that the connection begins with is in Conn.Path. It is called by one
	// goroutine, and must not block or close the connection.
	OnPath func(events.PathUpdate)
	// Logger is for what goes wrong on the way; nil logs nothing.
	Logger *zap.Logger
	// Metrics counts; nil does not.
	Metrics *Metrics
}

// CandidateError says what came of trying one candidate.
type CandidateError struct {
	Addr string
	Err  error
}

// DialError says what came of every candidate. It is marked events.Permanent
// if for each of them trying again is in vain.
type DialError struct {
	Candidates []CandidateError
}

// Error names each candidate and what it said.
func (e *DialError) Error() string {
	if len(e.Candidates) == 0 {
		return "cannot reach the agent: it has no address to try"
	}
	var b strings.Builder
	b.WriteString("cannot reach the agent")
	for i, c := range e.Candidates {
		b.WriteString([]string{": ", "; "}[min(i, 1)])
		fmt.Fprintf(&b, "%s: %s", c.Addr, c.Err)
	}
	return b.String()
}

// Unwrap gives the candidates' errors.
func (e *DialError) Unwrap() []error {
	errs := make([]error, len(e.Candidates))
	for i, c := range e.Candidates {
		errs[i] = c.Err
	}
	return errs
}

// permanent marks the error if no candidate is worth another try.
func (e *DialError) permanent() error {
	for _, c := range e.Candidates {
		var key *PeerKeyError
		var refused *KeyRefusedError
		if !errors.As(c.Err, &key) && !errors.As(c.Err, &refused) {
			return e
		}
	}
	if len(e.Candidates) == 0 {
		return e
	}
	return events.Permanent(e)
}

// Dial connects to the agent. It tries the candidates one after the other
// without waiting long for any, takes the first with which the handshake
// completes, and waits until the agent has answered the first ping there, which
// it does only once it has verified our key and claimed the session: one round
// trip more, for which a refused key is an error of the dial and not a
// connection that comes up and goes down. The error is a *DialError, which wraps
// ctx's if that has ended the dial.
func Dial(ctx context.Context, conf DialConfig) (*Conn, error) {
	if conf.Identity == nil || conf.PeerKeyHash.IsZero() {
		return nil, errors.New("dial needs an identity and the hash of the agent's key")
	}
	if err := checkSessionID(conf.SessionID); err != nil {
		return nil, err
	}
	if conf.Logger == nil {
		conf.Logger = zap.NewNop()
	}
	addrs, bad := parseCandidates(conf.Candidates)
	if len(addrs) == 0 {
		return nil, (&DialError{bad}).permanent()
	}
	d := &dialer{conf: conf, transport: &quic.Transport{Conn: conf.PacketConn, ConnectionIDLength: connIDLength}}
	if conf.PacketConn == nil {
		socket, err := listenUDP(":0", conf.Metrics)
		if err != nil {
			return nil, fmt.Errorf("open a UDP socket: %w", err)
		}
		d.socket, d.transport.Conn = socket, socket
	}
	c, err := d.dial(ctx, addrs, bad)
	if err != nil {
		d.close()
		return nil, err
	}
	return c, nil
}

// dialer is one Dial: a socket and the transport on it, which the connection
// takes over.
type dialer struct {
	conf      DialConfig
	transport *quic.Transport
	socket    *directSocket // ours to close; nil if it was given
}

func (d *dialer) close() {
	// The transport first: without its socket it would end the connection.
	_ = d.transport.Close()
	if d.socket != nil {
		_ = d.socket.Close()
	}
}

func (d *dialer) dial(ctx context.Context, addrs []netip.AddrPort, bad []CandidateError) (*Conn, error) {
	q, failed := d.race(ctx, addrs)
	if q == nil {
		return nil, (&DialError{append(failed, bad...)}).permanent()
	}
	addr := q.RemoteAddr().String()
	c, err := d.claim(ctx, q)
	if err != nil {
		return nil, (&DialError{[]CandidateError{{addr, err}}}).permanent()
	}
	d.conf.Metrics.add(ConnsDialled)
	return c, nil
}

// race brings up one QUIC connection. Every attempt has ended when it returns.
func (d *dialer) race(ctx context.Context, addrs []netip.AddrPort) (*quic.Conn, []CandidateError) {
	type result struct {
		addr netip.AddrPort
		q    *quic.Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	givenUp := ctx.Done()
	tlsConf := clientTLS(d.conf.SessionID, d.conf.Identity, d.conf.PeerKeyHash)
	results := make(chan result)
	pending := 0
	stagger := time.NewTimer(0)
	defer stagger.Stop()

	var winner *quic.Conn
	var failed []CandidateError
	for winner == nil && (len(addrs) > 0 || pending > 0) {
		due := stagger.C
		if len(addrs) == 0 {
			due = nil
		}
		select {
		case <-due:
			addr := addrs[0]
			addrs = addrs[1:]
			pending++
			go func() {
				q, err := d.transport.Dial(ctx, net.UDPAddrFromAddrPort(addr), tlsConf, quicConfig(0))
				results <- result{addr, q, err}
			}()
			stagger.Reset(raceStagger)
		case <-givenUp:
			for _, addr := range addrs {
				failed = append(failed, CandidateError{addr.String(), fmt.Errorf("not tried: %w", context.Cause(ctx))})
			}
			addrs, givenUp = nil, nil // the attempts under way end by themselves
		case r := <-results:
			pending--
			winner = r.q
			if r.err != nil {
				failed = append(failed, CandidateError{r.addr.String(), d.sentence(r.err)})
				stagger.Reset(0)
			}
		}
	}
	cancel()
	for ; pending > 0; pending-- {
		if r := <-results; r.q != nil {
			// The agent has heard nothing but a handshake of it.
			_ = r.q.CloseWithError(quic.ApplicationErrorCode(events.CloseReplaced), "another candidate was faster")
		}
	}
	return winner, failed
}

// claim opens the control stream, by which the agent tells the connection from
// those that lost the race, and waits for the agent's first pong on it.
func (d *dialer) claim(ctx context.Context, q *quic.Conn) (*Conn, error) {
	ctl, err := q.OpenStream()
	if err == nil {
		_, err = ctl.Write([]byte{events.StreamControl})
	}
	if err != nil {
		_ = q.CloseWithError(quic.ApplicationErrorCode(events.CloseProtocol), "cannot open the control stream")
		return nil, d.sentence(context.Cause(q.Context()))
	}
	conf := connConfig{
		client:  true,
		session: d.conf.SessionID,
		health:  d.conf.Health,
		onPath:  d.conf.OnPath,
		cleanup: func(*CloseError) { d.close() },
		logger:  d.conf.Logger,
		metrics: d.conf.Metrics,
	}
	if d.socket != nil {
		d.socket.lenient.Store(true)
		peer := q.RemoteAddr().String()
		conf.unreachable = func(ctx context.Context) bool { return portUnreachable(ctx, peer) }
	}
	c := newConn(q, ctl, conf)
	c.start()
	timeout := time.NewTimer(headerTimeout)
	defer timeout.Stop()
	select {
	case <-c.confirmed:
		return c, nil
	case <-c.done:
	case <-ctx.Done():
		_ = c.CloseWithReason(events.CloseNormal, "the dial was given up")
		return nil, fmt.Errorf("no answer after the handshake: %w", context.Cause(ctx))
	case <-timeout.C:
		_ = c.CloseWithReason(events.CloseLost, "the agent did not answer")
	}
	return nil, d.sentence(c.err)
}

// sentence says of a failed attempt what a person can act on.
func (d *dialer) sentence(err error) error {
	var transport *quic.TransportError
	var key *PeerKeyError
	switch {
	case errors.As(err, &key):
		return key
	case errors.As(err, &transport) && isAlert(transport, alertBadCertificate):
		return &KeyRefusedError{Ours: d.conf.Identity.KeyHash()}
	case errors.As(err, &transport) && isAlert(transport, alertUnrecognizedName):
		return ErrUnknownSession
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("no answer: %w", err)
	}
	return err
}
