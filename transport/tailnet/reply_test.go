package tailnet_test

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/tailnet/tailnettest"
)

func TestTheHeaderReachesTheAgentAndNoRoundTripIsSpentOnIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const latency = 50 * time.Millisecond
		tunneler, agent := tailnettest.NewNetwork(latency).Connect(t, tailnettest.Setup{})
		header := events.OpenHeader{Network: events.NetworkUnix, Target: "/run/app.sock", Deadline: 7 * time.Second}
		begin := time.Now()
		s, err := tunneler.Open(context.Background(), header)
		require.NoError(t, err)
		_, err = s.Write([]byte("at once"))
		require.NoError(t, err)
		require.Zero(t, time.Since(begin), "neither has waited for anything")

		in := accept(t, agent)
		got, err := in.Header()
		require.NoError(t, err)
		require.Equal(t, header, got)
		peer, err := in.Accept()
		require.NoError(t, err)
		require.Equal(t, header, peer.Header())
		require.Equal(t, "unix", peer.RemoteAddr().Network())
		require.Equal(t, "/run/app.sock", peer.RemoteAddr().String())
		data := make([]byte, 7)
		_, err = io.ReadFull(peer, data)
		require.NoError(t, err)
		require.Equal(t, "at once", string(data))
		require.Equal(t, latency, time.Since(begin), "the data came with the header")

		require.NoError(t, s.WaitReply(context.Background()))
		require.Equal(t, 2*latency, time.Since(begin))
		require.NoError(t, s.Close())
		require.NoError(t, peer.Close())
	})
}

func TestARefusalReachesTheOpener(t *testing.T) {
	long := strings.Repeat("x", 2*events.MaxReplyText)
	for _, test := range []struct {
		name  string
		give  events.Reply
		reply events.Reply
	}{
		{"with its code and sentence", events.Reply{Code: events.ReplyRefused, Text: "localhost:80: connection refused"}, events.Reply{Code: events.ReplyRefused, Text: "localhost:80: connection refused"}},
		{"without a sentence", events.Reply{Code: events.ReplyTimeout}, events.Reply{Code: events.ReplyTimeout}},
		{"with as much of a long sentence as fits", events.Reply{Code: events.ReplyDenied, Text: long}, events.Reply{Code: events.ReplyDenied, Text: long[:events.MaxReplyText]}},
		{"even if the agent calls it ok", events.Reply{Code: events.ReplyOK}, events.Reply{Code: events.ReplyInternal}},
	} {
		t.Run(test.name, func(t *testing.T) {
			tunneler, agent := tailnettest.Pair(t)
			s, err := tunneler.Open(context.Background(), web)
			require.NoError(t, err)
			in := accept(t, agent)
			_, err = in.Header()
			require.NoError(t, err)
			in.Refuse(test.give.Code, test.give.Text)

			for range 2 {
				var reply *events.Reply
				_, err = s.Read(make([]byte, 1))
				require.ErrorAs(t, err, &reply)
				require.Equal(t, test.reply, *reply)
				require.ErrorAs(t, s.WaitReply(context.Background()), &reply)
				require.Equal(t, test.reply, *reply)
			}
			require.NoError(t, s.Close())
			require.Zero(t, agent.Stats().Streams)
		})
	}
}

func TestDialContextWaitsForTheReplyAndItsContextEndsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tunneler, agent := tailnettest.NewNetwork(10*time.Millisecond).Connect(t, tailnettest.Setup{})
		answered := make(chan events.OpenHeader, 4)
		go func() {
			for i := 0; ; i++ {
				in, err := agent.Accept(context.Background())
				if err != nil {
					return
				}
				header, err := in.Header()
				if err != nil {
					return
				}
				answered <- header
				switch header.Target {
				case "good:1":
					s, err := in.Accept()
					if err == nil {
						go echo(s)
					}
				case "bad:1":
					in.Refuse(events.ReplyUnreachable, "no such host")
				}
			}
		}()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		conn, err := tunneler.DialContext(ctx, "tcp", "good:1")
		require.NoError(t, err)
		header := <-answered
		require.Equal(t, events.NetworkTCP, header.Network)
		require.Equal(t, time.Second, header.Deadline)
		cancel()
		synctest.Wait()
		_, err = conn.Write([]byte("still there"))
		require.NoError(t, err)
		_, err = io.ReadFull(conn, make([]byte, 11))
		require.NoError(t, err)
		require.NoError(t, conn.Close())

		_, err = tunneler.DialContext(context.Background(), "tcp", "bad:1")
		var reply *events.Reply
		require.ErrorAs(t, err, &reply)
		require.Equal(t, "dial tcp bad:1: no such host", err.Error())

		begin := time.Now()
		ctx, cancel = context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err = tunneler.DialContext(ctx, "tcp", "silent:1")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(begin))

		_, err = tunneler.DialContext(context.Background(), "sctp", "good:1")
		require.ErrorContains(t, err, "unknown network")
		require.Zero(t, tunneler.Stats().Streams)
	})
}

func TestAReplyThatADeadlineCutsInTwoIsReadToItsEnd(t *testing.T) {
	// The agent is bare QUIC, so that the reply can come in pieces.
	synctest.Test(t, func(t *testing.T) {
		tunneler, agent := rawAgent(t)
		s, err := tunneler.Open(context.Background(), web)
		require.NoError(t, err)
		defer s.Close()
		peer, err := agent.AcceptStream(context.Background())
		require.NoError(t, err)
		reply := events.AppendReply(nil, events.Reply{Code: events.ReplyDenied, Text: "no"})
		for i := range reply {
			require.NoError(t, s.SetReadDeadline(time.Now().Add(time.Second)))
			_, err = s.Read(make([]byte, 1))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			_, err = peer.Write(reply[i : i+1])
			require.NoError(t, err)
		}
		require.NoError(t, s.SetReadDeadline(time.Time{}))
		_, err = s.Read(make([]byte, 1))
		var got *events.Reply
		require.ErrorAs(t, err, &got)
		require.Equal(t, "no", got.Text)
	})
}

func TestAReplyThatIsNoneIsAnError(t *testing.T) {
	for _, test := range []struct {
		name, says string
		answer     func(*quic.Stream)
	}{
		{"garbage", "unknown reply code", func(s *quic.Stream) { _, _ = s.Write([]byte{0xff, 0, 0}) }},
		{"a text too long", "reply text length", func(s *quic.Stream) { _, _ = s.Write([]byte{1, 0xff, 0x7f}) }},
		{"an end", "without a reply", func(s *quic.Stream) { _ = s.Close() }},
		{"half a reply", "without a reply", func(s *quic.Stream) {
			_, _ = s.Write([]byte{1, 5, 'n'})
			_ = s.Close()
		}},
		{"a reset", "stream reset by the peer (lost)", func(s *quic.Stream) { s.CancelWrite(quic.StreamErrorCode(events.CloseLost)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			tunneler, agent := rawAgent(t)
			s, err := tunneler.Open(context.Background(), web)
			require.NoError(t, err)
			peer, err := agent.AcceptStream(context.Background())
			require.NoError(t, err)
			test.answer(peer)
			require.ErrorContains(t, s.WaitReply(context.Background()), test.says)
			_, err = s.Read(make([]byte, 1))
			require.ErrorContains(t, err, test.says, "and it stays that way")
			require.NoError(t, s.Close())
		})
	}
}
