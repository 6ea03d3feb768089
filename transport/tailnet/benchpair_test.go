package tailnet_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/transport/tailnet"
	"github.com/tunneler/tunneler/transport/tailnet/tailnettest"
)

// The ends of what the benchmarks compare.

// loopbackPair is a connection over UDP sockets at 127.0.0.1.
func loopbackPair(t testing.TB) (tunneler, agent *tailnet.Conn) {
	t.Helper()
	listener, err := tailnet.Listen(tailnet.ListenConfig{Addrs: []string{"127.0.0.1:0"}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close(context.Background()) })
	return joinLoopback(t, listener, tailnet.DialConfig{})
}

func joinLoopback(t testing.TB, listener *tailnet.Listener, dial tailnet.DialConfig) (tunneler, agent *tailnet.Conn) {
	t.Helper()
	ours, theirs := tailnettest.Identity(t), tailnettest.Identity(t)
	dial.SessionID, dial.Identity, dial.PeerKeyHash, dial.Candidates = "session", ours, theirs.KeyHash(), listener.Candidates()
	require.NoError(t, listener.Expect(tailnet.Session{
		ID: "session", Identity: theirs, PeerKeyHash: ours.KeyHash(), Expires: time.Now().Add(time.Minute),
	}))
	tunneler, err := tailnet.Dial(context.Background(), dial)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tunneler.Close() })
	agent, err = listener.Accept(context.Background())
	require.NoError(t, err)
	return tunneler, agent
}

// quicPair is a plain quic-go connection with its default settings.
func quicPair(b *testing.B) (client, server *quic.Conn) {
	b.Helper()
	cert := tailnettest.Identity(b).Certificate()
	socket := func() *quic.Transport {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(b, err)
		transport := &quic.Transport{Conn: conn}
		b.Cleanup(func() {
			_ = transport.Close()
			_ = conn.Close()
		})
		return transport
	}
	at := socket()
	listener, err := at.Listen(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"plain"}}, nil)
	require.NoError(b, err)
	client, err = socket().Dial(context.Background(), at.Conn.LocalAddr(),
		&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"plain"}}, nil)
	require.NoError(b, err)
	server, err = listener.Accept(context.Background())
	require.NoError(b, err)
	b.Cleanup(func() {
		_ = client.CloseWithError(0, "")
		_ = server.CloseWithError(0, "")
	})
	return client, server
}

// tlsPair is a TLS 1.3 connection over TCP.
func tlsPair(b *testing.B) (client, server io.ReadWriteCloser) {
	b.Helper()
	conf := &tls.Config{Certificates: []tls.Certificate{tailnettest.Identity(b).Certificate()}, MinVersion: tls.VersionTLS13}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	require.NoError(b, err)
	defer listener.Close()
	accepted := make(chan net.Conn)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			err = conn.(*tls.Conn).Handshake()
		}
		if err != nil {
			close(accepted)
			return
		}
		accepted <- conn
	}()
	conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	require.NoError(b, err)
	return conn, <-accepted
}

func closeWrite(c io.Closer) {
	switch c := c.(type) {
	case interface{ CloseWrite() error }:
		_ = c.CloseWrite()
	default:
		_ = c.Close() // of a *quic.Stream: the sending side
	}
}
