package tailnet_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/tailnet"
	"github.com/tunneler/tunneler/transport/tailnet/tailnettest"
)

func TestACloseReachesThePeerWithItsReason(t *testing.T) {
	long := strings.Repeat("r", 2*events.MaxReplyText)
	for _, test := range []struct {
		name  string
		close func(c *tailnet.Conn) error
		want  tailnet.CloseError
	}{
		{"Close", (*tailnet.Conn).Close, tailnet.CloseError{Code: events.CloseNormal}},
		{"CloseWithReason", func(c *tailnet.Conn) error {
			return c.CloseWithReason(events.CloseReplaced, "a newer one")
		}, tailnet.CloseError{Code: events.CloseReplaced, Reason: "a newer one"}},
		{"a reason too long", func(c *tailnet.Conn) error {
			return c.CloseWithReason(events.CloseGoingAway, long)
		}, tailnet.CloseError{Code: events.CloseGoingAway, Reason: long[:events.MaxReplyText]}},
	} {
		for _, side := range []string{"tunneler", "agent"} {
			t.Run(test.name+" by the "+side, func(t *testing.T) {
				a, b := tailnettest.Pair(t)
				if side == "agent" {
					a, b = b, a
				}
				require.NoError(t, a.Err())
				require.NoError(t, test.close(a))
				want := test.want
				require.Equal(t, want, *closeError(t, a))
				<-a.Done()
				want.Remote = true
				require.Equal(t, want, *closeError(t, b))

				require.NoError(t, a.Close(), "again")
				require.NoError(t, a.CloseWithReason(events.CloseLost, "again"))
				require.NoError(t, b.Close())
				_, err := a.Accept(context.Background())
				var closed *tailnet.CloseError
				require.ErrorAs(t, err, &closed)
				_, err = b.Open(context.Background(), web)
				require.ErrorAs(t, err, &closed)
			})
		}
	}
}

func TestCloseResetsWhatIsOpenAndDoesNotWaitForIt(t *testing.T) {
	for _, side := range []string{"tunneler", "agent"} {
		t.Run("by the "+side, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := tailnettest.NewNetwork(10*time.Millisecond).Connect(t, tailnettest.Setup{})
				ours, theirs := streamPair(t, a, b)
				if side == "agent" {
					a, b, ours, theirs = b, a, theirs, ours
				}
				noticed := make(chan error, 1)
				go func() {
					_, err := theirs.Read(make([]byte, 1))
					_ = theirs.Close()
					noticed <- err
				}()
				synctest.Wait()
				begin := time.Now()
				require.NoError(t, a.Close())
				require.LessOrEqual(t, time.Since(begin), 50*time.Millisecond)
				require.Error(t, <-noticed)
				_, err := ours.Write([]byte("x"))
				require.Error(t, err)
				<-b.Done()
			})
		})
	}
}

func TestCloseOfAConnectionWhosePeerIsGoneIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := tailnettest.NewNetwork(10 * time.Millisecond)
		tunneler, agent := network.Connect(t, tailnettest.Setup{})
		ours, _ := streamPair(t, tunneler, agent)
		require.NoError(t, ours.Close())
		network.Cut(true)
		begin := time.Now()
		require.NoError(t, tunneler.Close())
		require.Equal(t, tailnet.Linger, time.Since(begin))

		time.Sleep(12 * time.Second)
		require.True(t, agent.Path().Degraded)
		begin = time.Now()
		require.NoError(t, agent.Close())
		require.Zero(t, time.Since(begin), "it is known to be silent")
	})
}

func TestCloseInTheMidstOfEverything(t *testing.T) {
	for _, test := range []struct {
		name  string
		close func(tunneler, agent *tailnet.Conn)
	}{
		{"the tunneler, in good order", func(tunneler, _ *tailnet.Conn) { _ = tunneler.Close() }},
		{"the tunneler, at once", func(tunneler, _ *tailnet.Conn) { _ = tunneler.CloseWithReason(events.CloseLost, "") }},
		{"the agent, in good order", func(_, agent *tailnet.Conn) { _ = agent.Close() }},
		{"the agent, at once", func(_, agent *tailnet.Conn) { _ = agent.CloseWithReason(events.CloseLost, "") }},
		{"both", func(tunneler, agent *tailnet.Conn) {
			var both sync.WaitGroup
			both.Go(func() { _ = tunneler.Close() })
			both.Go(func() { _ = agent.CloseWithReason(events.CloseLost, "") })
			both.Wait()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			tunneler, agent := tailnettest.Pair(t)
			wait := serve(agent, echo)
			moving := make(chan struct{}, 100)
			var busy sync.WaitGroup
			for i := range 20 {
				busy.Go(func() { // streams that move data, and new ones all the time
					for {
						s, err := tunneler.Open(context.Background(), web)
						if err != nil {
							return
						}
						go func() { _, _ = io.CopyN(s, zeros{}, int64(i)<<16); _ = s.CloseWrite() }()
						_, _ = io.Copy(io.Discard, s)
						_ = s.Close()
						select {
						case moving <- struct{}{}:
						default:
						}
					}
				})
				busy.Go(func() { // flows
					f, err := tunneler.OpenFlow(context.Background(), dns)
					if err != nil {
						return
					}
					for err == nil {
						_, err = f.Write([]byte("x"))
					}
					_ = f.Close()
				})
			}
			for range 50 {
				<-moving
			}
			test.close(tunneler, agent)
			<-tunneler.Done()
			<-agent.Done()
			busy.Wait()
			wait()
		})
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestABrokenControlStreamEndsTheConnection(t *testing.T) {
	frame := func(f events.ControlFrame) []byte {
		b, err := events.AppendControlFrame(nil, f)
		require.NoError(t, err)
		return b
	}
	for _, test := range []struct {
		name string
		act  func(*quic.Stream)
		says string
	}{
		{"a frame that does not parse", func(s *quic.Stream) { _, _ = s.Write([]byte{1, 3, 'x', 'y', 'z'}) }, "does not parse"},
		{"a frame too long", func(s *quic.Stream) { _, _ = s.Write([]byte{1, 0xff, 0xff, 0x7f}) }, "payload length"},
		{"a frame cut off", func(s *quic.Stream) {
			_, _ = s.Write(frame(events.Drain{Reason: "because"})[:5])
			_ = s.Close()
		}, "unexpected EOF"},
		{"its end", func(s *quic.Stream) { _ = s.Close() }, "EOF"},
		{"its reset", func(s *quic.Stream) { s.CancelWrite(0) }, "canceled by remote"},
	} {
		t.Run(test.name, func(t *testing.T) {
			q, ctl, agent := rawPair(t, tailnet.ListenConfig{})
			test.act(ctl)
			closed := closeError(t, agent)
			require.Equal(t, events.CloseProtocol, closed.Code)
			require.False(t, closed.Remote)
			require.ErrorContains(t, closed, "control stream: ")
			require.ErrorContains(t, closed, test.says)
			<-q.Context().Done()
			var app *quic.ApplicationError
			require.ErrorAs(t, context.Cause(q.Context()), &app)
			require.Equal(t, quic.ApplicationErrorCode(events.CloseProtocol), app.ErrorCode)
		})
	}
}

func TestControlFramesThatMeanNothingAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := &tailnet.Metrics{}
		_, ctl, agent := rawPair(t, tailnet.ListenConfig{Metrics: metrics, Health: mute})
		send := func(f events.ControlFrame) {
			b, err := events.AppendControlFrame(nil, f)
			require.NoError(t, err)
			_, err = ctl.Write(b)
			require.NoError(t, err)
		}
		r := bufio.NewReader(ctl)
		read := func() events.ControlFrame {
			f, err := events.ReadControlFrame(r)
			require.NoError(t, err)
			return f
		}
		first, ok := read().(events.Ping)
		require.True(t, ok, "the agent pings at once")

		_, err := ctl.Write([]byte{99, 3, 'x', 'y', 'z'})
		require.NoError(t, err)
		send(events.Candidates{Addrs: []string{"10.0.0.1:1"}})
		send(events.Pong{Seq: first.Seq + 1})  // not sent yet
		send(events.Pong{Seq: first.Seq + 16}) // in the same slot
		send(events.Pong{})                    // before the first
		send(events.Pong(first))
		send(events.Pong(first)) // a second time
		ping := events.Ping{Seq: 7, Sent: time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)}
		send(ping)
		require.Equal(t, events.Pong(ping), read(), "all that was read, and in order")
		require.Equal(t, uint64(2), metrics.Get(tailnet.ControlIgnored))
		require.Equal(t, uint64(4), metrics.Get(tailnet.PongsUnknown))
		require.Equal(t, uint64(1), metrics.Get(tailnet.ClockSkews))
		require.NotZero(t, agent.Path().RTT)
		require.NoError(t, agent.Err())
	})
}

func TestAPeerThatDoesNotReadItsControlStreamHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := &tailnet.Metrics{}
		q, ctl, agent := rawPair(t, tailnet.ListenConfig{Metrics: metrics})
		ping, err := events.AppendControlFrame(nil, events.Ping{Seq: 1, Sent: time.Now()})
		require.NoError(t, err)
		// The pongs fill the window that nobody empties.
		_, err = ctl.Write(bytes.Repeat(ping, 40_000))
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.NotZero(t, metrics.Get(tailnet.ControlStalls))
		time.Sleep(5 * time.Minute)
		require.NoError(t, agent.Err(), "it is alive all the same")

		header, err := events.AppendOpenHeader(nil, web)
		require.NoError(t, err)
		rawStream(t, q, header)
		acceptStream(t, agent)
		require.NoError(t, agent.CloseWithReason(events.CloseNormal, ""))
	})
}

func TestThePeersFarewellExplainsALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := tailnettest.NewNetwork(10 * time.Millisecond)
		listener := listen(t, network, tailnet.ListenConfig{})
		_, dial := session(t, network, listener)
		q := rawDial(t, dial)
		ctl, err := q.OpenStream()
		require.NoError(t, err)
		bye, err := events.AppendControlFrame([]byte{events.StreamControl}, events.Close{Code: events.CloseGoingAway, Reason: "power cut"})
		require.NoError(t, err)
		_, err = ctl.Write(bye)
		require.NoError(t, err)
		agent, err := listener.Accept(context.Background())
		require.NoError(t, err)
		time.Sleep(time.Second)
		network.Cut(true) // so that nothing else arrives
		require.Equal(t, tailnet.CloseError{Code: events.CloseGoingAway, Reason: "power cut", Remote: true}, *closeError(t, agent))
	})
}

func TestACloseCodeOfTheFutureIsABreachOfTheProtocol(t *testing.T) {
	q, _, agent := rawPair(t, tailnet.ListenConfig{})
	require.NoError(t, q.CloseWithError(1000, "newer than you"))
	require.Equal(t, tailnet.CloseError{Code: events.CloseProtocol, Reason: "newer than you", Remote: true}, *closeError(t, agent))
}

func TestErrorsAreSentences(t *testing.T) {
	for _, test := range []struct {
		give error
		says string
	}{
		{&tailnet.CloseError{Code: events.CloseNormal}, "connection closed: normal"},
		{&tailnet.CloseError{Code: events.CloseGoingAway, Reason: "upgrade", Remote: true}, "connection closed by the peer: upgrade"},
		{&tailnet.CloseError{Code: events.CloseLost, Cause: tailnet.ErrPeerSilent}, "connection lost: the peer gave no sign of life"},
		{&tailnet.CloseError{Code: events.CloseReplaced, Remote: true}, "connection closed by the peer: replaced"},
		{&tailnet.ResetError{Code: events.CloseLost}, "stream reset by the peer (lost)"},
		{&tailnet.DatagramTooLargeError{Size: 3000, Max: 1200}, "datagram of 3000 bytes dropped: at most 1200 fit"},
		{&tailnet.KeyRefusedError{Ours: tailnet.KeyHash{0xab}}, "the agent refused our key with hash ab" + strings.Repeat("0", 62) + ": it expects another"},
		{&tailnet.PeerKeyError{Want: tailnet.KeyHash{0xab}}, "the peer showed no key, expected the one with hash ab" + strings.Repeat("0", 62)},
	} {
		require.Equal(t, test.says, test.give.Error())
	}
}

func TestBothEndsKnowTheirSessionAndAddresses(t *testing.T) {
	tunneler, agent := tailnettest.Pair(t)
	require.Equal(t, "session", tunneler.Session())
	require.Equal(t, "session", agent.Session())
	require.Equal(t, tunneler.LocalAddr().String(), agent.RemoteAddr().String())
	require.Equal(t, agent.LocalAddr().String(), tunneler.RemoteAddr().String())
}
