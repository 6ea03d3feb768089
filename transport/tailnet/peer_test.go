package tailnet_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/tailnet"
	"github.com/tunneler/tunneler/transport/tailnet/tailnettest"
)

// Helpers that more than one test file uses.

// web is a header to open streams with.
var web = events.OpenHeader{Network: events.NetworkTCP, Target: "localhost:80"}

// listen makes a listener on the network that is closed with the test.
func listen(t testing.TB, network *tailnettest.Network, conf tailnet.ListenConfig) *tailnet.Listener {
	t.Helper()
	if len(conf.PacketConns) == 0 {
		conf.PacketConns = []net.PacketConn{network.Socket(t)}
	}
	listener, err := tailnet.Listen(conf)
	require.NoError(t, err)
	t.Cleanup(func() { closeNow(listener) })
	return listener
}

// closeNow closes a listener without waiting for streams.
func closeNow(listener *tailnet.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = listener.Close(ctx)
}

// session is one that the listener expects, and what a tunneler needs to dial it.
func session(t testing.TB, network *tailnettest.Network, listener *tailnet.Listener) (tailnet.Session, tailnet.DialConfig) {
	t.Helper()
	ours, theirs := tailnettest.Identity(t), tailnettest.Identity(t)
	s := tailnet.Session{ID: "session", Identity: theirs, PeerKeyHash: ours.KeyHash(), Expires: time.Now().Add(time.Minute)}
	require.NoError(t, listener.Expect(s))
	return s, tailnet.DialConfig{
		SessionID:   s.ID,
		Identity:    ours,
		PeerKeyHash: theirs.KeyHash(),
		Candidates:  listener.Candidates(),
		PacketConn:  network.Socket(t),
	}
}

// rawDial does the handshake of a tunneler and nothing else.
func rawDial(t testing.TB, dial tailnet.DialConfig) *quic.Conn {
	t.Helper()
	q, err := tryRawDial(t, dial)
	require.NoError(t, err)
	return q
}

func tryRawDial(t testing.TB, dial tailnet.DialConfig) (*quic.Conn, error) {
	t.Helper()
	transport := &quic.Transport{Conn: dial.PacketConn}
	t.Cleanup(func() { _ = transport.Close() })
	addr, err := net.ResolveUDPAddr("udp", dial.Candidates[0])
	require.NoError(t, err)
	q, err := transport.Dial(context.Background(), addr, tailnet.ClientTLS(dial), tailnet.QUICConfig(0))
	if err == nil {
		t.Cleanup(func() { _ = q.CloseWithError(0, "") })
	}
	return q, err
}

// rawPair is a real agent's connection, and at the tunneler's end bare QUIC
// with the control stream open.
func rawPair(t testing.TB, conf tailnet.ListenConfig) (q *quic.Conn, ctl *quic.Stream, agent *tailnet.Conn) {
	t.Helper()
	network := tailnettest.NewNetwork(0)
	listener := listen(t, network, conf)
	_, dial := session(t, network, listener)
	q = rawDial(t, dial)
	ctl, err := q.OpenStream()
	require.NoError(t, err)
	_, err = ctl.Write([]byte{events.StreamControl})
	require.NoError(t, err)
	agent, err = listener.Accept(context.Background())
	require.NoError(t, err)
	return q, ctl, agent
}

// rawStream opens a stream that begins with the given bytes.
func rawStream(t testing.TB, q *quic.Conn, prefix []byte) *quic.Stream {
	t.Helper()
	s, err := q.OpenStream()
	require.NoError(t, err)
	_, err = s.Write(prefix)
	require.NoError(t, err)
	return s
}

// accept takes the agent's next stream and its header.
func accept(t testing.TB, agent *tailnet.Conn) *tailnet.Incoming {
	t.Helper()
	in, err := agent.Accept(context.Background())
	require.NoError(t, err)
	return in
}

// acceptStream takes the agent's next stream and accepts it.
func acceptStream(t testing.TB, agent *tailnet.Conn) *tailnet.Stream {
	t.Helper()
	in := accept(t, agent)
	_, err := in.Header()
	require.NoError(t, err)
	s, err := in.Accept()
	require.NoError(t, err)
	return s
}

// streamPair is one stream, accepted.
func streamPair(t testing.TB, tunneler, agent *tailnet.Conn) (ours, theirs *tailnet.Stream) {
	t.Helper()
	ours, err := tunneler.Open(context.Background(), web)
	require.NoError(t, err)
	theirs = acceptStream(t, agent)
	t.Cleanup(func() {
		_ = ours.Close()
		_ = theirs.Close()
	})
	return ours, theirs
}

// serve accepts every stream and hands it to handle in a goroutine of its own,
// until the connection ends; the func that it returns waits for all of that.
func serve(agent *tailnet.Conn, handle func(*tailnet.Stream)) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		handlers := make(chan struct{})
		n := 0
		for {
			in, err := agent.Accept(context.Background())
			if err != nil {
				break
			}
			n++
			go func() {
				defer func() { handlers <- struct{}{} }()
				if _, err := in.Header(); err != nil {
					return
				}
				if s, err := in.Accept(); err == nil {
					handle(s)
					_ = s.Close()
				}
			}()
		}
		for ; n > 0; n-- {
			<-handlers
		}
	}()
	return func() { <-done }
}

// echo sends back what comes, and then the end.
func echo(s *tailnet.Stream) {
	_, _ = io.Copy(s, s)
	_ = s.CloseWrite()
}

// closeError is how a connection ended.
func closeError(t testing.TB, c *tailnet.Conn) *tailnet.CloseError {
	t.Helper()
	var closed *tailnet.CloseError
	require.ErrorAs(t, c.Wait(), &closed)
	return closed
}

// rawAgent is a real tunneler's connection, and at the agent's end bare QUIC
// that has taken the control stream and answered the first ping, and no other.
func rawAgent(t testing.TB) (*tailnet.Conn, *quic.Conn) {
	t.Helper()
	network := tailnettest.NewNetwork(0)
	ours, theirs := tailnettest.Identity(t), tailnettest.Identity(t)
	transport := &quic.Transport{Conn: network.Socket(t)}
	t.Cleanup(func() { _ = transport.Close() })
	listener, err := transport.Listen(tailnet.ServerTLS(theirs, ours.KeyHash()), tailnet.QUICConfig(tailnet.DefaultMaxStreams))
	require.NoError(t, err)
	agents := make(chan *quic.Conn, 1)
	go func() {
		defer close(agents)
		q, err := listener.Accept(context.Background())
		if err != nil {
			return
		}
		ctl, err := q.AcceptStream(context.Background())
		if err != nil {
			return
		}
		_, _ = io.ReadFull(ctl, make([]byte, 1+1+1+16)) // the stream's type and a ping
		pong, _ := events.AppendControlFrame(nil, events.Pong{Seq: 1})
		_, _ = ctl.Write(pong)
		agents <- q
	}()
	c, err := tailnet.Dial(context.Background(), tailnet.DialConfig{
		SessionID: "session", Identity: ours, PeerKeyHash: theirs.KeyHash(),
		Candidates: []string{transport.Conn.LocalAddr().String()}, PacketConn: network.Socket(t),
		Health: tailnet.Health{Interval: time.Hour},
	})
	require.NoError(t, err)
	q := <-agents
	require.NotNil(t, q)
	t.Cleanup(func() { _ = q.CloseWithError(0, "") })
	t.Cleanup(func() { _ = c.CloseWithReason(events.CloseNormal, "") })
	return c, q
}
