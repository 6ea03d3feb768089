package tailnet_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/tailnet"
	"github.com/tunneler/tunneler/transport/tailnet/tailnettest"
)

func TestTheHandshakeIsMutualAndWithoutResumption(t *testing.T) {
	network := tailnettest.NewNetwork(0)
	listener := listen(t, network, tailnet.ListenConfig{})
	_, dial := session(t, network, listener)
	state := rawDial(t, dial).ConnectionState()
	require.Equal(t, uint16(0x0304), state.TLS.Version, "TLS 1.3")
	require.Equal(t, tailnet.ALPN, state.TLS.NegotiatedProtocol)
	require.Equal(t, quic.Version1, state.Version)
	require.False(t, state.TLS.DidResume)
	require.False(t, state.Used0RTT)
	require.True(t, state.SupportsDatagrams.Remote)

	anonymous := tailnet.ClientTLS(dial)
	anonymous.Certificates = nil
	transport := &quic.Transport{Conn: network.Socket(t)}
	defer transport.Close()
	addr, err := net.ResolveUDPAddr("udp", dial.Candidates[0])
	require.NoError(t, err)
	q, err := transport.Dial(context.Background(), addr, anonymous, tailnet.QUICConfig(0))
	require.NoError(t, err, "the tunneler's part of the handshake is over before the agent judges")
	<-q.Context().Done()
	var refused *quic.TransportError
	require.ErrorAs(t, context.Cause(q.Context()), &refused)
	require.True(t, refused.ErrorCode.IsCryptoError(), "a peer without a key is refused by TLS")
}

func TestDialRefusesAnAgentWithAnotherKeyAndNamesBoth(t *testing.T) {
	network := tailnettest.NewNetwork(0)
	listener := listen(t, network, tailnet.ListenConfig{})
	s, dial := session(t, network, listener)
	expected := tailnettest.Identity(t).KeyHash()
	dial.PeerKeyHash = expected
	_, err := tailnet.Dial(context.Background(), dial)

	var wrong *tailnet.PeerKeyError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, tailnet.PeerKeyError{Want: expected, Got: s.Identity.KeyHash()}, *wrong)
	require.ErrorContains(t, err, dial.Candidates[0]+": the peer has the key with hash "+s.Identity.KeyHash().String()+", expected "+expected.String())
	require.True(t, events.IsPermanent(err))
}

func TestTheAgentRefusesATunnelerWithAnotherKeyAndNamesBoth(t *testing.T) {
	network := tailnettest.NewNetwork(0)
	core, logs := observer.New(zap.InfoLevel)
	metrics := &tailnet.Metrics{}
	listener := listen(t, network, tailnet.ListenConfig{Logger: zap.New(core), Metrics: metrics})
	s, dial := session(t, network, listener)
	dial.Identity = tailnettest.Identity(t)
	for range 2 {
		dial.PacketConn = network.Socket(t)
		_, err := tailnet.Dial(context.Background(), dial)
		var refused *tailnet.KeyRefusedError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, dial.Identity.KeyHash(), refused.Ours)
		require.True(t, events.IsPermanent(err))
	}
	require.Equal(t, uint64(2), metrics.Get(tailnet.PeerKeysRefused))
	require.Equal(t, 1, logs.Len(), "only the first of a session is worth a warning")
	said := logs.All()[0].ContextMap()["error"]
	require.Equal(t, (&tailnet.PeerKeyError{Want: s.PeerKeyHash, Got: dial.Identity.KeyHash()}).Error(), said)
	require.Contains(t, said, s.PeerKeyHash.String())
	require.Contains(t, said, dial.Identity.KeyHash().String())
}

func TestASessionThatIsNotExpectedIsRefused(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(*tailnet.Listener, *tailnet.DialConfig)
		ok      bool
	}{
		{"one that is expected is let in", func(*tailnet.Listener, *tailnet.DialConfig) {}, true},
		{"one that is not known", func(_ *tailnet.Listener, d *tailnet.DialConfig) { d.SessionID = "another" }, false},
		{"one that was forgotten", func(l *tailnet.Listener, _ *tailnet.DialConfig) { l.Forget("session") }, false},
		{"one in its last moment", func(*tailnet.Listener, *tailnet.DialConfig) { time.Sleep(time.Minute - time.Second) }, true},
		{"one that has expired", func(*tailnet.Listener, *tailnet.DialConfig) { time.Sleep(time.Minute) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := tailnettest.NewNetwork(time.Millisecond)
				metrics := &tailnet.Metrics{}
				listener := listen(t, network, tailnet.ListenConfig{Metrics: metrics})
				_, dial := session(t, network, listener)
				test.prepare(listener, &dial)
				c, err := tailnet.Dial(context.Background(), dial)
				if test.ok {
					require.NoError(t, err)
					require.NoError(t, c.Close())
					return
				}
				require.ErrorIs(t, err, tailnet.ErrUnknownSession)
				require.False(t, events.IsPermanent(err), "a new session may succeed")
				require.Equal(t, uint64(1), metrics.Get(tailnet.SessionsUnknown))
			})
		})
	}
}

func TestDialTakesTheCandidateThatAnswersFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const latency = 10 * time.Millisecond
		network := tailnettest.NewNetwork(latency)
		metrics := &tailnet.Metrics{}
		listener := listen(t, network, tailnet.ListenConfig{Metrics: metrics})
		_, dial := session(t, network, listener)
		good := dial.Candidates[0]
		dial.Candidates = []string{"10.9.9.1:1", "not an address", "10.9.9.2:1", good}
		begin := time.Now()
		c, err := tailnet.Dial(context.Background(), dial)
		require.NoError(t, err)
		// Two silent ones before it, a round trip for the handshake and one
		// for the agent's word.
		require.Equal(t, 2*tailnet.RaceStagger+4*latency, time.Since(begin))
		require.Equal(t, good, c.Path().Addr)
		require.Equal(t, events.PathDirect, c.Path().Kind)
		require.NoError(t, c.Close())
		require.Equal(t, uint64(1), metrics.Get(tailnet.ConnsAccepted))
	})
}

func TestACandidateThatFailsMakesWayAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const latency = 10 * time.Millisecond
		network := tailnettest.NewNetwork(latency)
		stranger := listen(t, network, tailnet.ListenConfig{})
		listener := listen(t, network, tailnet.ListenConfig{})
		_, dial := session(t, network, listener)
		dial.Candidates = append(stranger.Candidates(), dial.Candidates...)
		begin := time.Now()
		c, err := tailnet.Dial(context.Background(), dial)
		require.NoError(t, err)
		require.Equal(t, 2*latency+4*latency, time.Since(begin))
		require.NoError(t, c.Close())
	})
}

func TestTheLosersOfARaceDoNotReachTheAgent(t *testing.T) {
	// Both candidates complete the handshake in the same instant, so one may
	// have to be taken down while it is up.
	synctest.Test(t, func(t *testing.T) {
		near, far := tailnettest.NewNetwork(tailnet.RaceStagger/2), &net.UDPAddr{IP: net.IPv4(10, 1, 0, 1), Port: 1}
		metrics := &tailnet.Metrics{}
		slow := near.SlowSocketAt(t, far, tailnet.RaceStagger+tailnet.RaceStagger/2)
		listener := listen(t, near, tailnet.ListenConfig{
			PacketConns: []net.PacketConn{slow, near.Socket(t)},
			Metrics:     metrics,
		})
		_, dial := session(t, near, listener)
		c, err := tailnet.Dial(context.Background(), dial)
		require.NoError(t, err)
		agent, err := listener.Accept(context.Background())
		require.NoError(t, err)

		time.Sleep(time.Second)
		synctest.Wait()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err = listener.Accept(ctx)
		require.ErrorIs(t, err, context.Canceled, "the loser is no second arrival")
		require.Equal(t, uint64(1), metrics.Get(tailnet.ConnsAccepted))
		require.NoError(t, agent.Err())
		require.NoError(t, c.Close())
	})
}

func TestAConnectionThatOpensNoControlStreamIsNoArrival(t *testing.T) {
	for _, test := range []struct {
		name string
		act  func(t *testing.T, q *quic.Conn)
		code events.CloseCode
	}{
		{"it has lost its race", func(t *testing.T, q *quic.Conn) {
			time.Sleep(time.Second) // the agent has completed the handshake too
			require.NoError(t, q.CloseWithError(quic.ApplicationErrorCode(events.CloseReplaced), ""))
		}, events.CloseReplaced},
		{"it does nothing", func(*testing.T, *quic.Conn) {}, events.CloseProtocol},
		{"it opens a stream and says nothing on it", func(t *testing.T, q *quic.Conn) {
			s, err := q.OpenStream()
			require.NoError(t, err)
			require.NoError(t, s.Close())
		}, events.CloseProtocol},
		{"it opens another kind of stream", func(t *testing.T, q *quic.Conn) { rawStream(t, q, []byte{events.StreamOpen}) }, events.CloseProtocol},
		{"it sends garbage", func(t *testing.T, q *quic.Conn) { rawStream(t, q, []byte("GET / HTTP/1.1\r\n")) }, events.CloseProtocol},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := tailnettest.NewNetwork(time.Millisecond)
				metrics := &tailnet.Metrics{}
				listener := listen(t, network, tailnet.ListenConfig{Metrics: metrics})
				_, dial := session(t, network, listener)
				q := rawDial(t, dial)
				begin := time.Now()
				test.act(t, q)
				<-q.Context().Done()
				require.LessOrEqual(t, time.Since(begin), tailnet.HeaderTimeout+time.Second)
				var closed *quic.ApplicationError
				require.ErrorAs(t, context.Cause(q.Context()), &closed)
				require.Equal(t, quic.ApplicationErrorCode(test.code), closed.ErrorCode)
				time.Sleep(time.Second)
				require.Equal(t, uint64(1), metrics.Get(tailnet.ConnsAbandoned))

				dial.PacketConn = network.Socket(t)
				c, err := tailnet.Dial(context.Background(), dial)
				require.NoError(t, err, "the session is not used up")
				require.NoError(t, c.Close())
			})
		})
	}
}

func TestASessionThatEndsDuringItsHandshakeTakesNoConnection(t *testing.T) {
	network := tailnettest.NewNetwork(0)
	metrics := &tailnet.Metrics{}
	listener := listen(t, network, tailnet.ListenConfig{Metrics: metrics})
	_, dial := session(t, network, listener)
	q := rawDial(t, dial)
	session(t, network, listener) // the same id for other keys
	rawStream(t, q, []byte{events.StreamControl})
	<-q.Context().Done()
	var closed *quic.ApplicationError
	require.ErrorAs(t, context.Cause(q.Context()), &closed)
	require.Equal(t, quic.ApplicationErrorCode(events.CloseUnauthorized), closed.ErrorCode)
	require.Equal(t, "the session is over", closed.ErrorMessage)
	require.Zero(t, metrics.Get(tailnet.ConnsAccepted))
}

func TestDialSaysWhatEveryCandidateSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := tailnettest.NewNetwork(time.Millisecond)
		listener := listen(t, network, tailnet.ListenConfig{})
		_, dial := session(t, network, listener)
		dial.PeerKeyHash = tailnettest.Identity(t).KeyHash()
		dial.Candidates = append(dial.Candidates, "10.9.9.1:1", "localhost:80", "0.0.0.0:1", "10.9.9.1:0", "224.0.0.1:5", dial.Candidates[0])
		_, err := tailnet.Dial(context.Background(), dial)
		var failed *tailnet.DialError
		require.ErrorAs(t, err, &failed)
		said := map[string]string{}
		for _, c := range failed.Candidates {
			require.NotContains(t, said, c.Addr, "each is tried once")
			said[c.Addr] = c.Err.Error()
		}
		require.Len(t, said, 6)
		require.Contains(t, said[dial.Candidates[0]], "the peer has the key with hash")
		require.Contains(t, said["10.9.9.1:1"], "no answer")
		for _, bad := range []string{"localhost:80", "0.0.0.0:1", "10.9.9.1:0", "224.0.0.1:5"} {
			require.Contains(t, said[bad], "not an IP address and port")
		}
		require.True(t, strings.HasPrefix(err.Error(), "cannot reach the agent: "))
		require.False(t, events.IsPermanent(err), "one of them may answer yet")
	})
}

func TestDialWithNothingToDial(t *testing.T) {
	id, peer := tailnettest.Identity(t), tailnettest.Identity(t).KeyHash()
	for _, test := range []struct {
		name, says string
		conf       tailnet.DialConfig
	}{
		{"no candidate", "it has no address to try", tailnet.DialConfig{SessionID: "s", Identity: id, PeerKeyHash: peer}},
		{"no good candidate", "x: not an IP address and port", tailnet.DialConfig{SessionID: "s", Identity: id, PeerKeyHash: peer, Candidates: []string{"x"}}},
		{"no identity", "needs an identity", tailnet.DialConfig{SessionID: "s", PeerKeyHash: peer, Candidates: []string{"10.0.0.1:1"}}},
		{"no pinned key", "needs an identity and the hash", tailnet.DialConfig{SessionID: "s", Identity: id, Candidates: []string{"10.0.0.1:1"}}},
		{"no session id", "bad session id", tailnet.DialConfig{Identity: id, PeerKeyHash: peer, Candidates: []string{"10.0.0.1:1"}}},
		{"a session id that is an address", "bad session id", tailnet.DialConfig{SessionID: "10.0.0.1", Identity: id, PeerKeyHash: peer, Candidates: []string{"10.0.0.1:1"}}},
		{"a session id that TLS would change", "bad session id", tailnet.DialConfig{SessionID: "Session.", Identity: id, PeerKeyHash: peer, Candidates: []string{"10.0.0.1:1"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := tailnet.Dial(context.Background(), test.conf)
			require.ErrorContains(t, err, test.says)
			require.False(t, events.IsPermanent(err))
		})
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	for _, test := range []struct {
		name string
		// late loses every packet once the handshake is over, not from the start.
		late bool
		says string
	}{
		{"while nobody answers", false, ":4433: no answer: context deadline exceeded"},
		{"while the agent does not say that it has accepted", true, ":4433: no answer after the handshake: context deadline exceeded"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := tailnettest.NewNetwork(10 * time.Millisecond)
				listener := listen(t, network, tailnet.ListenConfig{})
				_, dial := session(t, network, listener)
				if test.late {
					time.AfterFunc(25*time.Millisecond, func() { network.Cut(true) })
				} else {
					network.Cut(true)
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				begin := time.Now()
				_, err := tailnet.Dial(ctx, dial)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, test.says)
				require.Equal(t, time.Second, time.Since(begin))
			})
		})
	}
}

func TestADialThatIsCancelledNamesWhatItHasNotTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := tailnettest.NewNetwork(0)
		ctx, cancel := context.WithTimeout(context.Background(), tailnet.RaceStagger/2)
		defer cancel()
		_, err := tailnet.Dial(ctx, tailnet.DialConfig{
			SessionID: "session", Identity: tailnettest.Identity(t), PeerKeyHash: tailnet.KeyHash{1},
			Candidates: []string{"10.9.9.1:1", "10.9.9.2:1"}, PacketConn: network.Socket(t),
		})
		require.ErrorContains(t, err, "10.9.9.1:1: no answer: context deadline exceeded")
		require.ErrorContains(t, err, "10.9.9.2:1: not tried: context deadline exceeded")
	})
}
