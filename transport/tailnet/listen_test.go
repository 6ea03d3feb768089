package tailnet_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/tailnet"
	"github.com/tunneler/tunneler/transport/tailnet/tailnettest"
)

func TestATunnelerMayComeBackToItsSession(t *testing.T) {
	for _, test := range []struct {
		name string
		// end ends the first connection; gone is how long nobody is there then.
		end  func(network *tailnettest.Network, tunneler, agent *tailnet.Conn)
		gone time.Duration
		ok   bool
	}{
		{"at once, when it has noticed a loss before the agent", func(*tailnettest.Network, *tailnet.Conn, *tailnet.Conn) {}, 0, true},
		{"after a loss", lose, tailnet.DefaultResume - 5*time.Second, true}, // the agent may have noticed first
		{"but not long after a loss", lose, tailnet.DefaultResume, false},
		{"but not after it has closed", func(_ *tailnettest.Network, tunneler, agent *tailnet.Conn) {
			_ = tunneler.Close()
			<-agent.Done()
		}, 0, false},
		{"but not after the agent has closed", func(_ *tailnettest.Network, _, agent *tailnet.Conn) {
			_ = agent.CloseWithReason(events.CloseUnauthorized, "no more")
		}, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := tailnettest.NewNetwork(time.Millisecond)
				metrics := &tailnet.Metrics{}
				listener := listen(t, network, tailnet.ListenConfig{Metrics: metrics})
				_, dial := session(t, network, listener)
				first, err := tailnet.Dial(context.Background(), dial)
				require.NoError(t, err)
				firstAgent, err := listener.Accept(context.Background())
				require.NoError(t, err)
				time.Sleep(3 * time.Minute)
				require.NoError(t, firstAgent.Err(), "expiry means nothing to a session that has begun")

				test.end(network, first, firstAgent)
				time.Sleep(test.gone)
				dial.PacketConn = network.Socket(t)
				second, err := tailnet.Dial(context.Background(), dial)
				if !test.ok {
					require.ErrorIs(t, err, tailnet.ErrUnknownSession)
					return
				}
				require.NoError(t, err)
				secondAgent, err := listener.Accept(context.Background())
				require.NoError(t, err)
				ours, theirs := streamPair(t, second, secondAgent)
				require.NoError(t, ours.Close())
				require.NoError(t, theirs.Close())

				<-first.Done()
				closed := closeError(t, firstAgent)
				if test.gone == 0 {
					require.Equal(t, events.CloseReplaced, closed.Code, "one connection at a time")
					require.Equal(t, uint64(1), metrics.Get(tailnet.ConnsReplaced))
				}
				time.Sleep(time.Minute)
				require.NoError(t, secondAgent.Err(), "and the end of the first leaves the second alone")
				require.NoError(t, second.Close())
			})
		})
	}
}

// lose cuts the network until both ends have given the connection up.
func lose(network *tailnettest.Network, tunneler, agent *tailnet.Conn) {
	network.Cut(true)
	<-tunneler.Done()
	<-agent.Done()
	network.Cut(false)
}

func TestExpectReplacesASessionAndItsConnection(t *testing.T) {
	network := tailnettest.NewNetwork(0)
	listener := listen(t, network, tailnet.ListenConfig{})
	_, first := session(t, network, listener)
	old, err := tailnet.Dial(context.Background(), first)
	require.NoError(t, err)
	_, second := session(t, network, listener)
	require.Equal(t, events.CloseReplaced, closeError(t, old).Code)

	first.PacketConn = network.Socket(t)
	_, err = tailnet.Dial(context.Background(), first)
	var wrong *tailnet.PeerKeyError
	require.ErrorAs(t, err, &wrong, "the first session's key is none of the second's")
	c, err := tailnet.Dial(context.Background(), second)
	require.NoError(t, err)

	listener.Forget("session")
	closed := closeError(t, c)
	require.Equal(t, events.CloseUnauthorized, closed.Code)
	require.Equal(t, "the session was withdrawn", closed.Reason)
	listener.Forget("session")
}

func TestExpectRefusesWhatCannotBeASession(t *testing.T) {
	network := tailnettest.NewNetwork(0)
	listener := listen(t, network, tailnet.ListenConfig{})
	id := tailnettest.Identity(t)
	for _, test := range []struct {
		name string
		give tailnet.Session
		says string
	}{
		{"no identity", tailnet.Session{ID: "a", PeerKeyHash: id.KeyHash()}, "needs an identity"},
		{"no pinned key", tailnet.Session{ID: "a", Identity: id}, "needs an identity and the hash"},
		{"no id", tailnet.Session{Identity: id, PeerKeyHash: id.KeyHash()}, `bad session id ""`},
		{"a long id", tailnet.Session{ID: strings.Repeat("a", 64), Identity: id, PeerKeyHash: id.KeyHash()}, "1 to 63"},
		{"an id with a dot", tailnet.Session{ID: "a.", Identity: id, PeerKeyHash: id.KeyHash()}, "bad session id"},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.ErrorContains(t, listener.Expect(test.give), test.says)
		})
	}
	require.NoError(t, listener.Expect(tailnet.Session{
		ID: strings.Repeat("a", 63), Identity: id, PeerKeyHash: id.KeyHash(), Expires: time.Now().Add(time.Minute),
	}))
}

func TestTheNumberOfSessionsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := tailnettest.NewNetwork(0)
		listener := listen(t, network, tailnet.ListenConfig{MaxSessions: 3})
		id := tailnettest.Identity(t)
		expect := func(name string, life time.Duration) error {
			return listener.Expect(tailnet.Session{ID: name, Identity: id, PeerKeyHash: id.KeyHash(), Expires: time.Now().Add(life)})
		}
		_, dial := session(t, network, listener)
		live, err := tailnet.Dial(context.Background(), dial)
		require.NoError(t, err)
		require.NoError(t, expect("a", time.Minute))
		require.NoError(t, expect("b", time.Hour))
		err = expect("c", time.Minute)
		require.ErrorIs(t, err, tailnet.ErrTooManySessions)
		require.ErrorContains(t, err, "3, which is the limit")
		require.NoError(t, expect("b", time.Hour), "one of the three, anew")

		time.Sleep(time.Minute)
		require.NoError(t, expect("c", time.Minute), "in the place of the one that has expired")
		require.ErrorIs(t, expect("d", time.Minute), tailnet.ErrTooManySessions)
		require.NoError(t, live.Close())
		time.Sleep(time.Second)
		require.NoError(t, expect("d", time.Minute), "in the place of the one that was closed")
	})
}

func TestAFloodOfHandshakesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const latency = 10 * time.Millisecond
		network := tailnettest.NewNetwork(latency)
		metrics := &tailnet.Metrics{}
		listener := listen(t, network, tailnet.ListenConfig{MaxHandshakes: 2, Metrics: metrics})
		_, dial := session(t, network, listener)
		begin := time.Now()
		c, err := tailnet.Dial(context.Background(), dial)
		require.NoError(t, err)
		require.Equal(t, 4*latency, time.Since(begin))
		require.NoError(t, c.Close())
		time.Sleep(time.Second)

		_, dial = session(t, network, listener)
		listener.UseUnproven()
		begin = time.Now()
		dial.PacketConn = network.Socket(t)
		rawDial(t, dial)
		require.Equal(t, 4*latency, time.Since(begin), "a round trip more, to prove the address")
		require.NotZero(t, metrics.Get(tailnet.AddressChecks))

		dial.PacketConn = network.Socket(t)
		rawDial(t, dial)
		dial.PacketConn = network.Socket(t)
		_, err = tryRawDial(t, dial)
		require.ErrorContains(t, err, "CONNECTION_REFUSED", "two that do nothing are under way")
		require.NotZero(t, metrics.Get(tailnet.HandshakesRefused))

		time.Sleep(tailnet.HeaderTimeout)
		dial.PacketConn = network.Socket(t)
		c, err = tailnet.Dial(context.Background(), dial)
		require.NoError(t, err, "they were shown the door")
		require.NoError(t, c.Close())
	})
}

func TestStreamsBeyondTheLimitAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := &tailnet.Metrics{}
		tunneler, agent := tailnettest.NewNetwork(0).Connect(t, tailnettest.Setup{Listen: tailnet.ListenConfig{MaxStreams: 2, Metrics: metrics}})
		wait := serve(agent, echo)
		open := func() *tailnet.Stream {
			s, err := tunneler.Open(context.Background(), web)
			require.NoError(t, err)
			return s
		}
		first, second := open(), open()
		require.NoError(t, first.WaitReply(context.Background()))
		require.NoError(t, second.WaitReply(context.Background()))
		for range 200 { // more than QUIC would allow at once
			s := open()
			var reply *events.Reply
			require.ErrorAs(t, s.WaitReply(context.Background()), &reply)
			require.Equal(t, events.Reply{Code: events.ReplyTooMany, Text: "the connection already carries 2 streams"}, *reply)
			require.NoError(t, s.Close())
		}
		require.Equal(t, uint64(200), metrics.Get(tailnet.StreamsTooMany))
		require.NoError(t, first.CloseWrite())
		_, err := first.Read(make([]byte, 1))
		require.Error(t, err)
		require.NoError(t, first.Close())
		time.Sleep(time.Second)
		require.Equal(t, 1, agent.Stats().Streams)
		third := open()
		require.NoError(t, third.WaitReply(context.Background()), "there is room again")
		require.NoError(t, tunneler.Close())
		wait()
	})
}

func TestCloseDrainsTheConnections(t *testing.T) {
	for _, test := range []struct {
		name  string
		limit time.Duration
		took  time.Duration
		cut   bool
	}{
		{"until their streams are finished", time.Minute, 5 * time.Second, false},
		{"until its context ends", 2 * time.Second, 2 * time.Second, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := tailnettest.NewNetwork(0)
				listener := listen(t, network, tailnet.ListenConfig{})
				tunneler, agent := network.Join(t, listener, tailnet.DialConfig{})
				idle, _ := network.Join(t, listener, tailnet.DialConfig{SessionID: "idle"})
				wait := serve(agent, func(s *tailnet.Stream) { time.Sleep(5 * time.Second) })
				s, err := tunneler.Open(context.Background(), web)
				require.NoError(t, err)
				go func() {
					_, _ = s.Read(make([]byte, 1))
					_ = s.Close()
				}()
				synctest.Wait()
				ctx, cancel := context.WithTimeout(context.Background(), test.limit)
				defer cancel()
				begin := time.Now()
				err = listener.Close(ctx)
				require.Equal(t, test.took, time.Since(begin))
				require.Equal(t, test.cut, err != nil, "%v", err)
				for _, c := range []*tailnet.Conn{tunneler, idle} {
					closed := closeError(t, c)
					require.Equal(t, events.CloseGoingAway, closed.Code)
					require.Equal(t, "the agent is going away", closed.Reason)
				}
				wait()
				require.Equal(t, err, listener.Close(context.Background()), "again")
				_, err = listener.Accept(context.Background())
				require.ErrorIs(t, err, tailnet.ErrListenerClosed)
				require.ErrorIs(t, err, net.ErrClosed)
				require.ErrorIs(t, listener.Expect(tailnet.Session{ID: "late", Identity: tailnettest.Identity(t), PeerKeyHash: tailnet.KeyHash{1}}), tailnet.ErrListenerClosed)
			})
		})
	}
}

func TestAConnectionThatNobodyAcceptsIsClosedWithTheListener(t *testing.T) {
	network := tailnettest.NewNetwork(0)
	listener := listen(t, network, tailnet.ListenConfig{})
	var conns []*tailnet.Conn
	for i := range 20 { // more than wait in the queue
		ours, theirs := tailnettest.Identity(t), tailnettest.Identity(t)
		id := fmt.Sprintf("session-%d", i)
		require.NoError(t, listener.Expect(tailnet.Session{ID: id, Identity: theirs, PeerKeyHash: ours.KeyHash(), Expires: time.Now().Add(time.Minute)}))
		c, err := tailnet.Dial(context.Background(), tailnet.DialConfig{
			SessionID: id, Identity: ours, PeerKeyHash: theirs.KeyHash(), Candidates: listener.Candidates(), PacketConn: network.Socket(t),
		})
		require.NoError(t, err)
		conns = append(conns, c)
	}
	require.NoError(t, listener.Close(context.Background()))
	for _, c := range conns {
		require.Equal(t, events.CloseGoingAway, closeError(t, c).Code)
	}
}

func TestAListenerWhoseSocketFailsSaysSo(t *testing.T) {
	network := tailnettest.NewNetwork(0)
	socket := network.Socket(t)
	listener := listen(t, network, tailnet.ListenConfig{PacketConns: []net.PacketConn{socket}})
	require.NoError(t, socket.Close())
	_, err := listener.Accept(context.Background())
	require.ErrorContains(t, err, "listen at "+socket.LocalAddr().String())
	require.ErrorIs(t, err, net.ErrClosed)
	require.NotErrorIs(t, err, tailnet.ErrListenerClosed)
}

func TestListenAtAnAddressThatIsNotThere(t *testing.T) {
	for _, test := range []struct {
		name string
		conf tailnet.ListenConfig
		says string
	}{
		{"none", tailnet.ListenConfig{}, "listen needs an address"},
		{"no address", tailnet.ListenConfig{Addrs: []string{"127.0.0.1:0", "nonsense"}}, "listen at nonsense"},
		{"one of another host", tailnet.ListenConfig{Addrs: []string{"127.0.0.1:0", "192.0.2.1:0"}}, "listen at 192.0.2.1:0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := tailnet.Listen(test.conf)
			require.ErrorContains(t, err, test.says)
		})
	}
}
