package tailnet_test

import (
	"context"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/tailnet"
	"github.com/tunneler/tunneler/transport/tailnet/tailnettest"
)

// steady is a Health whose pings come every 3 s sharp.
func steady(lost int) tailnet.Health {
	return tailnet.Health{Lost: lost, Rand: func() float64 { return 0.5 }}
}

// mute is a Health that pings once and then leaves it to the other side.
var mute = tailnet.Health{Interval: time.Hour}

// pathLog collects what OnPath is told, and when.
type pathLog struct {
	mu    sync.Mutex
	begin time.Time
	at    []time.Duration
	paths []events.PathUpdate
}

func (l *pathLog) onPath(p events.PathUpdate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = append(l.at, time.Since(l.begin))
	l.paths = append(l.paths, p)
}

// since sets what times are counted from.
func (l *pathLog) since(begin time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin = begin
}

// told is what was told so far, and when.
func (l *pathLog) told() ([]events.PathUpdate, []time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.paths), slices.Clone(l.at)
}

func TestASilentPeerIsDegradedAndThenLost(t *testing.T) {
	const latency = 10 * time.Millisecond
	for _, test := range []struct {
		name     string
		health   tailnet.Health
		degraded time.Duration // silence
		lost     time.Duration
	}{
		{"after the protocol's 9 s and 15 s", steady(5), 9 * time.Second, 15 * time.Second},
		{"after 2 and 4 intervals of its own", tailnet.Health{
			Interval: time.Second, Degraded: 2, Lost: 4, Rand: func() float64 { return 0.5 },
		}, 2 * time.Second, 4 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := tailnettest.NewNetwork(latency)
				metrics, log := &tailnet.Metrics{}, &pathLog{}
				tunneler, _ := network.Connect(t, tailnettest.Setup{
					Dial:   tailnet.DialConfig{Health: test.health, OnPath: log.onPath, Metrics: metrics},
					Listen: tailnet.ListenConfig{Health: mute},
				})
				// The first ping goes out with the control stream, a round trip
				// before Dial returns; its pong and all others take as long.
				firstPing := time.Now().Add(-2 * latency)
				interval := 3 * time.Second
				if test.health.Interval != 0 {
					interval = test.health.Interval
				}
				require.Equal(t, 2*latency, tunneler.Path().RTT)
				time.Sleep(10*interval + interval/2)
				paths, _ := log.told()
				require.Empty(t, paths)
				require.False(t, tunneler.Path().Degraded)

				lastSign := firstPing.Add(10*interval + 2*latency)
				log.since(lastSign)
				network.Cut(true)
				closed := closeError(t, tunneler)
				require.Equal(t, test.lost, time.Since(lastSign))
				require.Equal(t, events.CloseLost, closed.Code)
				require.False(t, closed.Remote)
				require.ErrorIs(t, closed, tailnet.ErrPeerSilent)
				require.ErrorIs(t, closed, net.ErrClosed)
				paths, at := log.told()
				require.Equal(t, []time.Duration{test.degraded}, at)
				require.Equal(t, []events.PathUpdate{{
					Kind: events.PathDirect, Addr: tunneler.RemoteAddr().String(), RTT: 2 * latency, Degraded: true,
					Reason: "no sign of life for " + test.degraded.String(),
				}}, paths)
				require.Equal(t, uint64(1), metrics.Get(tailnet.ConnsDegraded))
				require.Equal(t, uint64(1), metrics.Get(tailnet.ConnsLost))
			})
		})
	}
}

func TestADegradedPathRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := tailnettest.NewNetwork(10 * time.Millisecond)
		log := &pathLog{}
		tunneler, agent := network.Connect(t, tailnettest.Setup{
			Dial:   tailnet.DialConfig{Health: steady(10), OnPath: log.onPath},
			Listen: tailnet.ListenConfig{Health: mute},
		})
		time.Sleep(time.Second)
		network.Cut(true)
		time.Sleep(12 * time.Second)
		require.True(t, tunneler.Path().Degraded)
		network.Cut(false)
		time.Sleep(15 * time.Second)
		paths, _ := log.told()
		require.Len(t, paths, 2)
		require.False(t, paths[1].Degraded)
		require.Equal(t, "the peer is back", paths[1].Reason)
		require.False(t, tunneler.Path().Degraded)
		require.NoError(t, tunneler.Err())
		require.NoError(t, agent.Err())
	})
}

func TestOneLostPongIsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := tailnettest.NewNetwork(10 * time.Millisecond)
		log := &pathLog{}
		tunneler, _ := network.Connect(t, tailnettest.Setup{
			Dial:   tailnet.DialConfig{Health: steady(10), OnPath: log.onPath},
			Listen: tailnet.ListenConfig{Health: mute},
		})
		for range 5 {
			time.Sleep(9 * time.Second)
			network.Cut(true)
			time.Sleep(3 * time.Second)
			network.Cut(false)
		}
		paths, _ := log.told()
		require.Empty(t, paths)
		require.NoError(t, tunneler.Err())
	})
}

func TestReceivedDataIsASignOfLife(t *testing.T) {
	// No pong ever comes back, because the agent is bare QUIC that answers
	// none; it sends data now and then instead.
	synctest.Test(t, func(t *testing.T) {
		tunneler, agent := rawAgent(t)
		require.NoError(t, tunneler.Err())
		s, err := tunneler.Open(context.Background(), web)
		require.NoError(t, err)
		defer s.Close()
		peer, err := agent.AcceptStream(context.Background())
		require.NoError(t, err)
		_, err = peer.Write(events.AppendReply(nil, events.Reply{}))
		require.NoError(t, err)
		go func() { _, _ = io.Copy(io.Discard, s) }()
		for range 100 {
			time.Sleep(8 * time.Second)
			_, err = peer.Write([]byte("x"))
			require.NoError(t, err)
			require.False(t, tunneler.Path().Degraded)
		}
	})
}

func TestWithoutPingsTheIdleTimeoutFindsADeadPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := tailnettest.NewNetwork(10 * time.Millisecond)
		tunneler, agent := network.Connect(t, tailnettest.Setup{
			Dial:   tailnet.DialConfig{Health: mute},
			Listen: tailnet.ListenConfig{Health: mute},
		})
		time.Sleep(time.Hour) // QUIC's own keep-alive is enough
		require.NoError(t, tunneler.Err())
		network.Cut(true)
		begin := time.Now()
		for _, c := range []*tailnet.Conn{tunneler, agent} {
			closed := closeError(t, c)
			require.Equal(t, events.CloseLost, closed.Code)
			require.ErrorIs(t, closed, tailnet.ErrIdleTimeout)
		}
		// The last packet came at most a keep-alive before, and the idle time
		// begins anew with the first packet sent after it.
		require.LessOrEqual(t, time.Since(begin), tailnet.IdleTimeout+15*time.Second)
		require.GreaterOrEqual(t, time.Since(begin), tailnet.IdleTimeout-15*time.Second)
	})
}

func TestAPeerThatLostTheConnectionSaysSo(t *testing.T) {
	key := [32]byte{1, 2, 3}
	for _, test := range []struct {
		name  string
		key   *[32]byte
		cause error
	}{
		{"at once, if it has kept its key", &key, tailnet.ErrPeerRestarted},
		{"not at all with a key of its own, and is given up", nil, tailnet.ErrPeerSilent},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := tailnettest.NewNetwork(10 * time.Millisecond)
				socket := network.Socket(t)
				tunneler, agent := network.Connect(t, tailnettest.Setup{
					Dial: tailnet.DialConfig{Health: steady(5)},
					Listen: tailnet.ListenConfig{
						PacketConns: []net.PacketConn{socket}, StatelessResetKey: &key,
					},
				})
				time.Sleep(time.Second)
				// The agent's process dies: its socket is gone before it can say anything.
				require.NoError(t, socket.Close())
				<-agent.Done()
				at := socket.LocalAddr().(*net.UDPAddr)
				listen(t, network, tailnet.ListenConfig{
					PacketConns: []net.PacketConn{network.SocketAt(t, at)}, StatelessResetKey: test.key,
				})
				begin := time.Now()
				closed := closeError(t, tunneler)
				require.Equal(t, events.CloseLost, closed.Code)
				require.ErrorIs(t, closed, test.cause)
				if test.key != nil {
					require.LessOrEqual(t, time.Since(begin), 3*time.Second, "with the next ping")
				}
			})
		})
	}
}
