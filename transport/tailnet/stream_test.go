package tailnet_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/tailnet"
	"github.com/tunneler/tunneler/transport/tailnet/tailnettest"
)

func TestAStreamIsANetConn(t *testing.T) {
	tunneler, agent := tailnettest.Pair(t)
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		ours, err := tunneler.Open(context.Background(), web)
		if err != nil {
			return nil, nil, nil, err
		}
		in, err := agent.Accept(context.Background())
		if err != nil {
			return nil, nil, nil, err
		}
		if _, err := in.Header(); err != nil {
			return nil, nil, nil, err
		}
		theirs, err := in.Accept()
		if err != nil {
			return nil, nil, nil, err
		}
		return ours, theirs, func() {
			_ = ours.Close()
			_ = theirs.Close()
		}, nil
	})
}

func TestAStreamIsResetWhenItsOpenerGivesUp(t *testing.T) {
	for _, test := range []struct {
		name string
		wait func(ctx context.Context, s *tailnet.Stream) error
	}{
		{"in Open's context, seen by Read", func(_ context.Context, s *tailnet.Stream) error {
			_, err := s.Read(make([]byte, 1))
			return err
		}},
		{"in WaitReply's", func(ctx context.Context, s *tailnet.Stream) error { return s.WaitReply(ctx) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			tunneler, agent := tailnettest.Pair(t)
			ctx, cancel := context.WithCancelCause(context.Background())
			s, err := tunneler.Open(ctx, web)
			require.NoError(t, err)
			in := accept(t, agent)
			_, err = in.Header()
			require.NoError(t, err)
			bored := errors.New("bored")
			go cancel(bored)
			require.ErrorIs(t, test.wait(ctx, s), bored)
			require.Zero(t, tunneler.Stats().Streams)

			peer, err := in.Accept()
			require.NoError(t, err)
			_, err = peer.Read(make([]byte, 1))
			var reset *tailnet.ResetError
			require.ErrorAs(t, err, &reset)
			require.NoError(t, peer.Close())
			require.Zero(t, agent.Stats().Streams)
		})
	}
}

func TestAContextMeansNothingToAStreamThatIsAccepted(t *testing.T) {
	tunneler, agent := tailnettest.Pair(t)
	ctx, cancel := context.WithCancel(context.Background())
	s, err := tunneler.Open(ctx, web)
	require.NoError(t, err)
	peer := acceptStream(t, agent)
	require.NoError(t, s.WaitReply(ctx))
	cancel()
	_, err = s.Write([]byte("x"))
	require.NoError(t, err)
	_, err = io.ReadFull(peer, make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, peer.Close())

	_, err = tunneler.Open(ctx, web)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, tunneler.Stats().Streams)
}

func TestHalfCloseIsCarriedBothWays(t *testing.T) {
	for _, first := range []string{"tunneler", "agent"} {
		t.Run("the "+first+" first", func(t *testing.T) {
			tunneler, agent := tailnettest.Pair(t)
			a, b := streamPair(t, tunneler, agent)
			if first == "agent" {
				a, b = b, a
			}
			_, err := a.Write([]byte("question"))
			require.NoError(t, err)
			require.NoError(t, a.CloseWrite())
			got, err := io.ReadAll(b)
			require.NoError(t, err)
			require.Equal(t, "question", string(got))
			_, err = a.Write([]byte("more"))
			require.ErrorIs(t, err, net.ErrClosed)

			_, err = b.Write([]byte("answer"))
			require.NoError(t, err, "the other way is open still")
			require.NoError(t, b.CloseWrite())
			got, err = io.ReadAll(a)
			require.NoError(t, err)
			require.Equal(t, "answer", string(got))
		})
	}
}

func TestAResetIsAResetAtTheOtherEnd(t *testing.T) {
	for _, side := range []string{"tunneler", "agent"} {
		for _, code := range []events.CloseCode{events.CloseNormal, events.CloseLost} {
			t.Run(fmt.Sprintf("by the %s with %s", side, code), func(t *testing.T) {
				tunneler, agent := tailnettest.Pair(t)
				a, b := streamPair(t, tunneler, agent)
				if side == "agent" {
					a, b = b, a
				}
				blocked := make(chan error)
				go func() {
					_, err := a.Read(make([]byte, 1))
					blocked <- err
				}()
				a.Reset(code)
				require.ErrorIs(t, <-blocked, net.ErrClosed, "a reader at this end is released")

				var reset *tailnet.ResetError
				_, err := b.Read(make([]byte, 1))
				if side == "agent" {
					// The opener may have to read the reply first, which the reset has overtaken.
					require.Error(t, err)
				} else {
					require.ErrorAs(t, err, &reset)
					require.Equal(t, code, reset.Code)
				}
				// Writes are queued until the peer's word has come.
				for err = error(nil); err == nil; {
					_, err = b.Write([]byte("x"))
				}
				require.ErrorAs(t, err, &reset)
				require.Equal(t, code, reset.Code)
				_, err = a.Write([]byte("x"))
				require.ErrorIs(t, err, net.ErrClosed)
				require.NoError(t, a.Close())
				require.NoError(t, b.Close())
				require.Zero(t, tunneler.Stats().Streams+agent.Stats().Streams)
			})
		}
	}
}

func TestCloseLosesNothingThatWasWritten(t *testing.T) {
	tunneler, agent := tailnettest.Pair(t)
	payload := make([]byte, 4<<20)
	_, _ = rand.Read(payload)
	got := make(chan []byte, 1)
	wait := serve(agent, func(s *tailnet.Stream) {
		b, _ := io.ReadAll(s)
		got <- b
	})
	s, err := tunneler.Open(context.Background(), web)
	require.NoError(t, err)
	_, err = s.Write(payload)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, tunneler.Close(), "not even when the connection is closed behind it")
	require.True(t, bytes.Equal(payload, <-got))
	wait()
}

func TestCloseReleasesAWriterThatIsBlocked(t *testing.T) {
	tunneler, agent := tailnettest.Pair(t)
	ours, theirs := streamPair(t, tunneler, agent)
	blocked := make(chan error)
	go func() {
		_, err := ours.Write(make([]byte, 16<<20)) // nobody reads
		blocked <- err
	}()
	_, err := io.ReadFull(theirs, make([]byte, 1))
	require.NoError(t, err, "the writer has begun")
	require.NoError(t, ours.Close())
	require.ErrorIs(t, <-blocked, net.ErrClosed)
}

func TestClosedStreamsGiveTheirFlowControlCreditBack(t *testing.T) {
	// With room for one stream at a time, what is left unread would fill the
	// connection's window (64 MB) after 258 streams.
	tunneler, agent := tailnettest.NewNetwork(0).Connect(t, tailnettest.Setup{Listen: tailnet.ListenConfig{MaxStreams: 1}})
	chunk := make([]byte, 256<<10)
	for i := range 280 {
		ours, err := tunneler.Open(context.Background(), web)
		require.NoError(t, err)
		theirs := acceptStream(t, agent)
		require.NoError(t, ours.SetWriteDeadline(time.Now().Add(10*time.Second)))
		_, err = ours.Write(chunk[:len(chunk)-64])
		require.NoError(t, err, "stream %d", i)
		require.NoError(t, theirs.Close(), "without having read anything")
		require.NoError(t, ours.Close())
	}
}

func TestASlowReaderHoldsUpItsOwnStreamOnly(t *testing.T) {
	tunneler, agent := tailnettest.Pair(t)
	const stalled = 100
	var writers sync.WaitGroup
	for range stalled {
		ours, _ := streamPair(t, tunneler, agent)
		writers.Go(func() { _, _ = ours.Write(make([]byte, 1<<20)) })
		require.NoError(t, ours.SetWriteDeadline(time.Now().Add(time.Minute)))
		defer ours.Close()
	}
	// The stalled writers have filled their windows when no more arrives.
	ours, theirs := streamPair(t, tunneler, agent)
	payload := make([]byte, 8<<20)
	_, _ = rand.Read(payload)
	var writer sync.WaitGroup
	writer.Go(func() {
		_, _ = ours.Write(payload)
		_ = ours.CloseWrite()
	})
	got, err := io.ReadAll(theirs)
	require.NoError(t, err)
	require.True(t, bytes.Equal(payload, got))
	writer.Wait()
	require.NoError(t, tunneler.CloseWithReason(events.CloseNormal, ""))
	writers.Wait()
}

func TestTwoHundredStreamsAtOnceCarryWhatTheyShould(t *testing.T) {
	tunneler, agent := tailnettest.Pair(t)
	wait := serve(agent, echo)
	var clients sync.WaitGroup
	for i := range 200 {
		clients.Go(func() {
			s, err := tunneler.Open(context.Background(), web)
			if !noError(t, err) {
				return
			}
			defer s.Close()
			payload := make([]byte, 10_000+137*i)
			_, _ = rand.Read(payload)
			var writer sync.WaitGroup
			writer.Go(func() {
				_, err := s.Write(payload)
				noError(t, err)
				_ = s.CloseWrite()
			})
			got, err := io.ReadAll(s)
			noError(t, err)
			if !bytes.Equal(payload, got) {
				t.Errorf("stream %d: %d bytes came back of %d, or others", i, len(got), len(payload))
			}
			writer.Wait()
		})
	}
	clients.Wait()
	stats := tunneler.Stats()
	require.Equal(t, uint64(200), stats.StreamsSeen)
	require.Zero(t, stats.Streams)
	require.NotZero(t, stats.BytesSent)
	require.NotZero(t, stats.RTT)
	require.NoError(t, tunneler.Close())
	wait()
}

// noError is require.NoError for a goroutine.
func noError(t *testing.T, err error) bool {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	return err == nil
}
