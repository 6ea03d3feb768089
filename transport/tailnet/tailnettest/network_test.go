package tailnettest_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/tailnet"
	"github.com/tunneler/tunneler/transport/tailnet/tailnettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func greet(t *testing.T, tunneler, agent *tailnet.Conn) {
	t.Helper()
	s, err := tunneler.Open(context.Background(), events.OpenHeader{Network: events.NetworkTCP, Target: "localhost:1"})
	require.NoError(t, err)
	in, err := agent.Accept(context.Background())
	require.NoError(t, err)
	_, err = in.Header()
	require.NoError(t, err)
	peer, err := in.Accept()
	require.NoError(t, err)
	_, err = peer.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, peer.Close())
	got, err := io.ReadAll(s)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	require.NoError(t, s.Close())
}

func TestAPairIsConnected(t *testing.T) {
	tunneler, agent := tailnettest.Pair(t)
	greet(t, tunneler, agent)
}

func TestANetworkHasLatencyAndLosesWhatItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := tailnettest.NewNetwork(25 * time.Millisecond)
		tunneler, agent := network.Connect(t, tailnettest.Setup{})
		require.Equal(t, 50*time.Millisecond, tunneler.Path().RTT)
		greet(t, tunneler, agent)
		network.Cut(true)
		<-tunneler.Done()
		<-agent.Done()
	})
}
