package tailnet_test

import (
	"context"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/tailnet"
	"github.com/tunneler/tunneler/transport/tailnet/tailnettest"
)

func TestAStreamThatDoesNotBeginWithAHeaderIsRefused(t *testing.T) {
	for _, test := range []struct {
		name  string
		bytes []byte
		says  string
	}{
		{"garbage", []byte("GET / HTTP/1.1\r\n\r\n"), "stream of unknown type 71"},
		{"a second control stream", []byte{events.StreamControl, 1, 0}, "stream of unknown type 1"},
		{"a version of the future", []byte{events.StreamOpen, 2, 1, 0, 1, 'x'}, "version 2"},
		{"an unknown network", []byte{events.StreamOpen, 1, 9, 0, 1, 'x'}, "unknown network 9"},
		{"a target too long", []byte{events.StreamOpen, 1, 1, 0, 0xff, 0xff, 0x7f}, "target length"},
		{"no target", []byte{events.StreamOpen, 1, 1, 0, 0}, "empty target"},
		{"a deadline of a thousand years", []byte{events.StreamOpen, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, "deadline"},
	} {
		t.Run(test.name, func(t *testing.T) {
			metrics := &tailnet.Metrics{}
			q, _, agent := rawPair(t, tailnet.ListenConfig{Metrics: metrics})
			s := rawStream(t, q, test.bytes)
			in := accept(t, agent)
			for range 2 {
				_, err := in.Header()
				require.ErrorIs(t, err, events.ErrStreamHeader)
				require.ErrorContains(t, err, test.says)
			}
			_, err := in.Accept()
			require.ErrorIs(t, err, events.ErrStreamHeader)
			_, err = in.Flow()
			require.ErrorIs(t, err, events.ErrStreamHeader)
			in.Refuse(events.ReplyDenied, "has no effect any more")

			reply, err := events.ReadReply(events.NewByteReader(s))
			require.NoError(t, err)
			require.Equal(t, events.ReplyBadRequest, reply.Code)
			require.Contains(t, reply.Text, test.says)
			_, err = s.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
			require.Equal(t, uint64(1), metrics.Get(tailnet.BadHeaders))
			require.Zero(t, agent.Stats().Streams)
			require.NoError(t, agent.Err(), "the connection has other streams to carry")
		})
	}
}

func TestAHeaderThatIsSlowHoldsUpNobodyAndIsBounded(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(*quic.Stream)
		took time.Duration
	}{
		{"it never comes", func(*quic.Stream) {}, tailnet.HeaderTimeout},
		{"it ends too soon", func(s *quic.Stream) { _ = s.Close() }, 0},
		{"it is reset", func(s *quic.Stream) { s.CancelWrite(0) }, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, _, agent := rawPair(t, tailnet.ListenConfig{})
				slow := rawStream(t, q, []byte{events.StreamOpen, 1, 1})
				header, err := events.AppendOpenHeader(nil, web)
				require.NoError(t, err)
				rawStream(t, q, header)
				begin := time.Now()
				first := accept(t, agent)
				failed := make(chan error)
				go func() {
					_, err := first.Header()
					failed <- err
				}()
				acceptStream(t, agent)
				require.Zero(t, time.Since(begin))
				test.end(slow)
				require.Error(t, <-failed)
				require.Equal(t, test.took, time.Since(begin))
				require.Equal(t, 1, agent.Stats().Streams)
			})
		})
	}
}

func TestAHeaderTheOpenerCannotSend(t *testing.T) {
	tunneler, _ := tailnettest.Pair(t)
	for _, header := range []events.OpenHeader{
		{},
		{Network: events.NetworkTCP},
		{Network: events.NetworkTCP, Target: strings.Repeat("x", events.MaxTarget+1)},
		{Network: events.NetworkTCP, Target: "x:1", Deadline: -1},
	} {
		_, err := tunneler.Open(context.Background(), header)
		require.ErrorIs(t, err, events.ErrStreamHeader)
	}
	require.Zero(t, tunneler.Stats().StreamsSeen)
}

func TestAStreamCostsNoGoroutine(t *testing.T) {
	tunneler, agent := tailnettest.Pair(t)
	streamPair(t, tunneler, agent)
	before := runtime.NumGoroutine()
	for range 50 {
		streamPair(t, tunneler, agent)
	}
	require.Less(t, runtime.NumGoroutine(), before+10)
}

// FuzzAccept sends arbitrary bytes as the beginning of a stream. Whatever they
// are, the agent gives a header that could have been sent or refuses, and its
// connection lives on.
func FuzzAccept(f *testing.F) {
	good, err := events.AppendOpenHeader(nil, web)
	require.NoError(f, err)
	f.Add(good)
	f.Add(append(good, "data"...))
	f.Add(good[:3])
	f.Add([]byte{})
	f.Add([]byte{events.StreamControl})
	f.Add([]byte{events.StreamOpen, 1, 2, 0xff, 0xff})
	f.Add([]byte("SSH-2.0-OpenSSH\r\n"))
	q, _, agent := rawPair(f, tailnet.ListenConfig{})
	f.Fuzz(func(t *testing.T, prefix []byte) {
		s, err := q.OpenStreamSync(t.Context())
		require.NoError(t, err)
		// The write may be cut short by a refusal.
		_, _ = s.Write(prefix)
		_ = s.Close()
		in := accept(t, agent)
		header, err := in.Header()
		if err != nil {
			in.Refuse(events.ReplyInternal, "")
		} else {
			_, err := events.AppendOpenHeader(nil, header)
			require.NoError(t, err, "a header that is read can be written")
			in.Refuse(events.ReplyDenied, "")
		}
		reply, rerr := events.ReadReply(events.NewByteReader(s))
		require.NoError(t, rerr)
		want := events.ReplyDenied
		if err != nil {
			want = events.ReplyBadRequest
		}
		require.Equal(t, want, reply.Code)
		s.CancelRead(0)
		require.NoError(t, agent.Err())
	})
}
