package tailnet_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/tailnet"
)

// These tests use the sockets of this host's loopback.

func TestOverLoopback(t *testing.T) {
	addrs := []string{"127.0.0.1:0"}
	if conn, err := net.ListenPacket("udp", "[::1]:0"); err == nil { // not every host has IPv6
		require.NoError(t, conn.Close())
		addrs = append(addrs, "[::1]:0")
	}
	for _, addr := range addrs {
		t.Run(addr, func(t *testing.T) {
			listener, err := tailnet.Listen(tailnet.ListenConfig{Addrs: []string{addr}})
			require.NoError(t, err)
			defer closeNow(listener)
			require.Equal(t, []string{listener.Addrs()[0].String()}, listener.Candidates())
			tunneler, agent := joinLoopback(t, listener, tailnet.DialConfig{})
			if runtime.GOOS == "linux" {
				require.True(t, tunneler.GSO(), "the sockets keep segmentation offload")
				require.True(t, agent.GSO())
			}
			wait := serve(agent, echo)
			s, err := tunneler.Open(context.Background(), web)
			require.NoError(t, err)
			payload := make([]byte, 8<<20)
			_, _ = rand.Read(payload)
			var writer sync.WaitGroup
			writer.Go(func() {
				_, _ = s.Write(payload)
				_ = s.CloseWrite()
			})
			got, err := io.ReadAll(s)
			require.NoError(t, err)
			require.True(t, bytes.Equal(payload, got))
			writer.Wait()
			require.NoError(t, s.Close())
			require.NoError(t, tunneler.Close())
			wait()
		})
	}
}

func TestTheAgentOfAClosedPortIsNotWaitedFor(t *testing.T) {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	listener, err := tailnet.Listen(tailnet.ListenConfig{PacketConns: []net.PacketConn{socket}})
	require.NoError(t, err)
	defer closeNow(listener)
	tunneler, agent := joinLoopback(t, listener, tailnet.DialConfig{
		Health: tailnet.Health{Interval: 20 * time.Millisecond, Lost: 1e6},
	})
	// As by kill -9: nothing is said to the peer.
	require.NoError(t, socket.Close())
	<-agent.Done()
	closed := closeError(t, tunneler)
	require.Equal(t, events.CloseLost, closed.Code)
	require.ErrorIs(t, closed, tailnet.ErrPeerUnreachable)
}
