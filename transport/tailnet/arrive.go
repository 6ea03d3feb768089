package tailnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tunneler/tunneler/events"
)

// The way of a connection from its first packet to Listener.Accept.

func (l *Listener) mustProveAddress(net.Addr) bool {
	if l.unproven.Allow() {
		return false
	}
	l.conf.Metrics.add(AddressChecks)
	return true
}

// handshakeKey is the context key of the func that says that the handshake of
// a connection is over.
type handshakeKey struct{}

// admit counts a handshake as under way until its connection is claimed or
// ctx, which ends with the connection, does.
func (l *Listener) admit(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	if l.handshakes.Add(1) > int64(l.conf.MaxHandshakes) {
		l.handshakes.Add(-1)
		l.conf.Metrics.add(HandshakesRefused)
		return nil, errors.New("too many handshakes")
	}
	leave := sync.OnceFunc(func() { l.handshakes.Add(-1) })
	stop := context.AfterFunc(ctx, leave)
	return context.WithValue(ctx, handshakeKey{}, func() { stop(); leave() }), nil
}

// accept takes the QUIC connections of one socket.
func (l *Listener) accept(listener *quic.Listener) {
	for {
		q, err := listener.Accept(context.Background())
		if err != nil {
			// Unless Close came first, the socket has failed.
			l.close(fmt.Errorf("listen at %s: %w", listener.Addr(), err))
			return
		}
		l.wg.Go(func() { l.arrive(q) })
	}
}

// arrive waits until a connection opens its control stream, which makes it the
// session's connection. One that does not has lost its race.
func (l *Listener) arrive(q *quic.Conn) {
	leave := q.Context().Value(handshakeKey{}).(func())
	defer leave()
	ctl, err := l.controlStream(q)
	if err != nil {
		l.conf.Metrics.add(ConnsAbandoned)
		_ = q.CloseWithError(quic.ApplicationErrorCode(events.CloseProtocol), err.Error())
		return
	}
	state := q.ConnectionState().TLS
	c := newConn(q, ctl, connConfig{
		session:    state.ServerName,
		maxStreams: l.conf.MaxStreams,
		health:     l.conf.Health,
		logger:     l.conf.Logger,
		metrics:    l.conf.Metrics,
	})
	c.cleanup = func(why *CloseError) { l.sessions.release(c, why) }
	replaced, ok := l.sessions.claim(c, hashOf(state.PeerCertificates[0]))
	if !ok {
		_ = q.CloseWithError(quic.ApplicationErrorCode(events.CloseUnauthorized), "the session is over")
		return
	}
	c.start()
	leave()
	l.conf.Metrics.add(ConnsAccepted)
	if replaced != nil {
		l.replace(replaced)
	}
	select {
	case l.claimed <- c:
	case <-c.done:
	case <-l.closing.Done():
	}
}

// controlStream waits for the first stream and reads its first byte.
func (l *Listener) controlStream(q *quic.Conn) (*quic.Stream, error) {
	ctx, cancel := context.WithTimeout(l.closing, headerTimeout)
	defer cancel()
	ctl, err := q.AcceptStream(ctx)
	if err != nil {
		return nil, errors.New("no control stream was opened")
	}
	stop := context.AfterFunc(ctx, func() { _ = ctl.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var typ [1]byte
	if _, err := io.ReadFull(ctl, typ[:]); err != nil {
		return nil, errors.New("the control stream has no beginning")
	}
	if typ[0] != events.StreamControl {
		return nil, fmt.Errorf("the first stream is of type %d and not the control stream", typ[0])
	}
	return ctl, nil
}
