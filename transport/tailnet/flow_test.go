package tailnet_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/tailnet"
	"github.com/tunneler/tunneler/transport/tailnet/tailnettest"
)

var dns = events.OpenHeader{Network: events.NetworkUDP, Target: "10.0.0.53:53"}

// flowPair is one flow, accepted.
func flowPair(t *testing.T, tunneler, agent *tailnet.Conn) (ours, theirs *tailnet.Flow) {
	t.Helper()
	ours, err := tunneler.OpenFlow(context.Background(), events.OpenHeader{Target: dns.Target})
	require.NoError(t, err)
	in := accept(t, agent)
	header, err := in.Header()
	require.NoError(t, err)
	require.Equal(t, dns, header)
	theirs, err = in.Flow()
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = ours.Close()
		_ = theirs.Close()
	})
	return ours, theirs
}

func TestAFlowKeepsTheBoundariesOfDatagrams(t *testing.T) {
	tunneler, agent := tailnettest.Pair(t)
	ours, theirs := flowPair(t, tunneler, agent)
	other, otherPeer := flowPair(t, tunneler, agent)
	for _, text := range []string{"one", "", "three"} {
		n, err := ours.Write([]byte(text))
		require.NoError(t, err)
		require.Equal(t, len(text), n)
	}
	_, err := other.Write([]byte("elsewhere"))
	require.NoError(t, err)

	b := make([]byte, 100)
	for _, text := range []string{"one", "", "three"} {
		n, err := theirs.Read(b)
		require.NoError(t, err)
		require.Equal(t, text, string(b[:n]))
	}
	n, err := otherPeer.Read(b)
	require.NoError(t, err)
	require.Equal(t, "elsewhere", string(b[:n]))

	_, err = theirs.Write([]byte("a long answer"))
	require.NoError(t, err)
	n, err = ours.Read(b[:6])
	require.NoError(t, err)
	require.Equal(t, "a long", string(b[:n]), "what does not fit is cut, as UDP does")
	require.Equal(t, dns, ours.Header())
	require.Equal(t, "udp", ours.RemoteAddr().Network())
	require.Equal(t, dns.Target, theirs.RemoteAddr().String())
	require.NoError(t, ours.WaitReply(context.Background()))
}

func TestDatagramsThatComeBeforeTheFlowIsKnownAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := &tailnet.Metrics{}
		tunneler, agent := tailnettest.NewNetwork(time.Millisecond).Connect(t, tailnettest.Setup{Listen: tailnet.ListenConfig{Metrics: metrics}})
		flowPair(t, tunneler, agent) // so that datagrams are being read
		ours, err := tunneler.OpenFlow(context.Background(), dns)
		require.NoError(t, err)
		defer ours.Close()
		question := func(i byte) {
			_, err := ours.Write([]byte{i})
			require.NoError(t, err)
		}
		question(1)
		time.Sleep(time.Second) // nobody has read the header yet
		in := accept(t, agent)
		_, err = in.Header()
		require.NoError(t, err)
		question(2)
		time.Sleep(time.Second) // nobody has answered yet
		theirs, err := in.Flow()
		require.NoError(t, err)
		defer theirs.Close()
		question(3)
		for i := range byte(3) {
			b := make([]byte, 1)
			_, err := theirs.Read(b)
			require.NoError(t, err)
			require.Equal(t, i+1, b[0])
		}
		require.Zero(t, metrics.Get(tailnet.DatagramsUnknown))
	})
}

func TestDatagramsOfNoFlowAreDroppedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := &tailnet.Metrics{}
		q, _, agent := rawPair(t, tailnet.ListenConfig{Metrics: metrics})
		header, err := events.AppendOpenHeader(nil, dns)
		require.NoError(t, err)
		rawStream(t, q, header)
		in := accept(t, agent)
		_, err = in.Header()
		require.NoError(t, err)
		theirs, err := in.Flow()
		require.NoError(t, err)
		defer theirs.Close()

		for range tailnet.EarlyDatagrams + 10 {
			require.NoError(t, q.SendDatagram(events.AppendFlow(nil, 400)))
		}
		require.NoError(t, q.SendDatagram(nil), "without a flow id")
		require.NoError(t, q.SendDatagram(binary.AppendUvarint(nil, 1<<63)), "with one that no stream has")
		require.NoError(t, q.SendDatagram(append(events.AppendFlow(nil, 4), "good"...)))
		b := make([]byte, 10)
		n, err := theirs.Read(b)
		require.NoError(t, err)
		require.Equal(t, "good", string(b[:n]))
		require.Equal(t, uint64(12), metrics.Get(tailnet.DatagramsUnknown), "all but those held for a flow to come")
	})
}

func TestAReaderThatIsSlowLosesTheNewestDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := &tailnet.Metrics{}
		tunneler, agent := tailnettest.NewNetwork(time.Millisecond).Connect(t, tailnettest.Setup{Listen: tailnet.ListenConfig{Metrics: metrics}})
		ours, theirs := flowPair(t, tunneler, agent)
		for i := range tailnet.FlowQueue + 5 {
			_, err := ours.Write(binary.AppendUvarint(nil, uint64(i)))
			require.NoError(t, err)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		require.Equal(t, uint64(5), metrics.Get(tailnet.DatagramsOverflow))
		b := make([]byte, 10)
		for i := range tailnet.FlowQueue {
			n, err := theirs.Read(b)
			require.NoError(t, err)
			got, _ := binary.Uvarint(b[:n])
			require.Equal(t, uint64(i), got)
		}
		require.NoError(t, theirs.SetReadDeadline(time.Now().Add(time.Second)))
		_, err := theirs.Read(b)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	})
}

func TestADatagramThatDoesNotFitIsAnErrorOfItsSender(t *testing.T) {
	metrics := &tailnet.Metrics{}
	tunneler, agent := tailnettest.NewNetwork(0).Connect(t, tailnettest.Setup{Dial: tailnet.DialConfig{Metrics: metrics}})
	ours, theirs := flowPair(t, tunneler, agent)
	_, err := ours.Write(make([]byte, 3000))
	var tooLarge *tailnet.DatagramTooLargeError
	require.ErrorAs(t, err, &tooLarge)
	require.Equal(t, 3000, tooLarge.Size)
	require.Greater(t, tooLarge.Max, 1000)
	require.Equal(t, uint64(1), metrics.Get(tailnet.DatagramsTooLarge))

	n, err := ours.Write(make([]byte, tooLarge.Max))
	require.NoError(t, err, "what is said to fit does")
	require.Equal(t, tooLarge.Max, n)
	n, err = theirs.Read(make([]byte, 3000))
	require.NoError(t, err)
	require.Equal(t, tooLarge.Max, n)
}

func TestAFlowEndsAtBothSides(t *testing.T) {
	for _, first := range []string{"tunneler", "agent"} {
		t.Run("closed by the "+first, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tunneler, agent := tailnettest.NewNetwork(time.Millisecond).Connect(t, tailnettest.Setup{})
				a, b := flowPair(t, tunneler, agent)
				if first == "agent" {
					a, b = b, a
				}
				_, err := a.Write([]byte("last"))
				require.NoError(t, err)
				time.Sleep(time.Second)
				require.NoError(t, a.Close())
				_, err = a.Write([]byte("x"))
				require.ErrorIs(t, err, net.ErrClosed)
				_, err = a.Read(make([]byte, 1))
				require.ErrorIs(t, err, net.ErrClosed)

				time.Sleep(time.Second)
				p := make([]byte, 10)
				n, err := b.Read(p)
				require.NoError(t, err, "what came before the end is read first")
				require.Equal(t, "last", string(p[:n]))
				_, err = b.Read(p)
				require.ErrorIs(t, err, io.EOF)
				_, err = b.Write([]byte("x"))
				require.ErrorIs(t, err, net.ErrClosed)
				require.NoError(t, b.Close())
				require.Zero(t, tunneler.Stats().Streams+agent.Stats().Streams)
			})
		})
	}
}

func TestARefusedFlow(t *testing.T) {
	tunneler, agent := tailnettest.Pair(t)
	f, err := tunneler.OpenFlow(context.Background(), dns)
	require.NoError(t, err)
	_, err = f.Write([]byte("question"))
	require.NoError(t, err)
	in := accept(t, agent)
	_, err = in.Header()
	require.NoError(t, err)
	_, err = in.Accept()
	require.ErrorContains(t, err, "answer it with Flow")
	in.Refuse(events.ReplyDenied, "no UDP here")
	_, err = f.Read(make([]byte, 1))
	var reply *events.Reply
	require.ErrorAs(t, err, &reply)
	require.Equal(t, "no UDP here", reply.Text)
	_, err = f.Write([]byte("another"))
	require.ErrorAs(t, err, &reply)
	require.NoError(t, f.Close())

	refused := make(chan struct{})
	go func() {
		defer close(refused)
		in, err := agent.Accept(context.Background())
		if err == nil {
			_, _ = in.Header()
			in.Refuse(events.ReplyDenied, "still not")
		}
	}()
	_, err = tunneler.DialContext(context.Background(), "udp", dns.Target)
	<-refused
	require.ErrorAs(t, err, &reply)
	require.Equal(t, "dial udp "+dns.Target+": still not", err.Error())

	s, err := tunneler.Open(context.Background(), web)
	require.NoError(t, err)
	defer s.Close()
	in = accept(t, agent)
	_, err = in.Header()
	require.NoError(t, err)
	_, err = in.Flow()
	require.ErrorContains(t, err, "answer it with Accept")
	in.Refuse(events.ReplyInternal, "")
	require.Zero(t, agent.Stats().Streams)
}

func TestAFlowsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tunneler, agent := tailnettest.NewNetwork(0).Connect(t, tailnettest.Setup{})
		ours, theirs := flowPair(t, tunneler, agent)
		begin := time.Now()
		require.NoError(t, ours.SetDeadline(begin.Add(time.Second)))
		_, err := ours.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, time.Second, time.Since(begin))
		_, err = ours.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "until it is set anew")

		require.NoError(t, ours.SetReadDeadline(time.Now().Add(time.Minute)))
		require.NoError(t, ours.SetReadDeadline(time.Time{}))
		time.AfterFunc(2*time.Minute, func() { _, _ = theirs.Write([]byte("x")) })
		_, err = ours.Read(make([]byte, 1))
		require.NoError(t, err)

		released := make(chan error)
		go func() {
			_, err := ours.Read(make([]byte, 1))
			released <- err
		}()
		synctest.Wait()
		require.NoError(t, ours.SetReadDeadline(time.Unix(1, 0)))
		require.ErrorIs(t, <-released, os.ErrDeadlineExceeded)
	})
}

func TestFlowsEndWithTheConnection(t *testing.T) {
	tunneler, agent := tailnettest.Pair(t)
	ours, theirs := flowPair(t, tunneler, agent)
	require.NoError(t, agent.CloseWithReason(events.CloseGoingAway, "bye"))
	var closed *tailnet.CloseError
	_, err := ours.Read(make([]byte, 1))
	require.ErrorAs(t, err, &closed)
	require.Equal(t, tailnet.CloseError{Code: events.CloseGoingAway, Reason: "bye", Remote: true}, *closed)
	_, err = ours.Write([]byte("x"))
	require.ErrorAs(t, err, &closed)
	_, err = theirs.Read(make([]byte, 1))
	require.ErrorAs(t, err, &closed)
	require.False(t, closed.Remote)
	_, err = tunneler.OpenFlow(context.Background(), dns)
	require.ErrorAs(t, err, &closed)
}

func TestTheStreamOfAFlowCarriesNoData(t *testing.T) {
	q, _, agent := rawPair(t, tailnet.ListenConfig{})
	header, err := events.AppendOpenHeader(nil, dns)
	require.NoError(t, err)
	s := rawStream(t, q, header)
	in := accept(t, agent)
	_, err = in.Header()
	require.NoError(t, err)
	f, err := in.Flow()
	require.NoError(t, err)
	_, err = s.Write([]byte("data"))
	require.NoError(t, err)
	_, err = f.Read(make([]byte, 1))
	require.ErrorIs(t, err, events.ErrStreamHeader)
	require.NoError(t, f.SetWriteDeadline(time.Now()))
	require.Equal(t, agent.LocalAddr(), f.LocalAddr())
	require.NoError(t, f.Close())
	require.Zero(t, agent.Stats().Streams)
}
