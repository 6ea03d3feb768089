package tailnet_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/tailnet"
	"github.com/tunneler/tunneler/transport/tailnet/tailnettest"
)

const drainLatency = 10 * time.Millisecond

func TestADrainLetsStreamsFinishAndThenCloses(t *testing.T) {
	for _, leaving := range []string{"tunneler", "agent", "both"} {
		t.Run("by the "+leaving, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tunneler, agent := tailnettest.NewNetwork(drainLatency).Connect(t, tailnettest.Setup{})
				wait := serve(agent, func(s *tailnet.Stream) {
					_, _ = io.ReadAll(s)
					time.Sleep(5 * time.Second) // a request that takes its time
					_, _ = s.Write([]byte("answer"))
				})
				s, err := tunneler.Open(context.Background(), web)
				require.NoError(t, err)
				require.NoError(t, s.CloseWrite())
				time.Sleep(time.Second)

				begin := time.Now()
				drained := make(chan error, 2)
				n := 0
				for name, c := range map[string]*tailnet.Conn{"tunneler": tunneler, "agent": agent} {
					if leaving == name || leaving == "both" {
						n++
						go func() { drained <- c.Drain(context.Background(), time.Minute, "upgrade") }()
					}
				}
				<-tunneler.Draining()
				<-agent.Draining()
				require.LessOrEqual(t, time.Since(begin), drainLatency)
				_, err = tunneler.Open(context.Background(), web)
				require.ErrorIs(t, err, tailnet.ErrDraining)
				grace, reason, ok := map[bool]*tailnet.Conn{true: agent, false: tunneler}[leaving == "tunneler"].PeerDrain()
				require.Equal(t, leaving != "both" || ok, ok)
				if ok {
					require.Equal(t, time.Minute, grace)
					require.Equal(t, "upgrade", reason)
				}

				got, err := io.ReadAll(s)
				require.NoError(t, err)
				require.Equal(t, "answer", string(got))
				require.NoError(t, tunneler.Err(), "not before the stream is closed")
				closedAt := time.Now()
				require.NoError(t, s.Close())
				for range n {
					require.NoError(t, <-drained)
				}
				require.LessOrEqual(t, time.Since(closedAt), 4*drainLatency, "and then at once")
				wait()
				for _, c := range []*tailnet.Conn{tunneler, agent} {
					closed := closeError(t, c)
					require.Equal(t, events.CloseGoingAway, closed.Code)
					require.Equal(t, "upgrade", closed.Reason)
				}
			})
		})
	}
}

func TestADrainWaitsForStreamsThatTheAgentHasNotSeenYet(t *testing.T) {
	// Everything that the tunneler has written is closed at its own end, and
	// the packet with it is lost once; only the agent can know when it is there.
	synctest.Test(t, func(t *testing.T) {
		network := tailnettest.NewNetwork(drainLatency)
		tunneler, agent := network.Connect(t, tailnettest.Setup{})
		got := make(chan string, 1)
		wait := serve(agent, func(s *tailnet.Stream) {
			b, _ := io.ReadAll(s)
			got <- string(b)
		})
		time.Sleep(time.Second)
		network.Cut(true)
		s, err := tunneler.Open(context.Background(), web)
		require.NoError(t, err)
		_, err = s.Write([]byte("last words"))
		require.NoError(t, err)
		require.NoError(t, s.Close())
		time.Sleep(5 * time.Millisecond)
		network.Cut(false)
		require.NoError(t, tunneler.Drain(context.Background(), time.Minute, ""))
		require.Equal(t, "last words", <-got)
		wait()
	})
}

func TestADrainEndsWithItsGraceOrContext(t *testing.T) {
	for _, test := range []struct {
		name  string
		grace time.Duration
		limit time.Duration
		took  time.Duration
		err   error
	}{
		{"when the grace is over", 5 * time.Second, time.Minute, 5 * time.Second, tailnet.ErrCutOff},
		{"when its context is", time.Minute, 2 * time.Second, 2 * time.Second, context.DeadlineExceeded},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tunneler, agent := tailnettest.NewNetwork(drainLatency).Connect(t, tailnettest.Setup{})
				ours, theirs := streamPair(t, tunneler, agent)
				ctx, cancel := context.WithTimeout(context.Background(), test.limit)
				defer cancel()
				begin := time.Now()
				require.ErrorIs(t, agent.Drain(ctx, test.grace, "going"), test.err)
				require.Equal(t, test.took, time.Since(begin))
				for _, s := range []*tailnet.Stream{ours, theirs} {
					var closed *tailnet.CloseError
					_, err := s.Read(make([]byte, 1))
					require.ErrorAs(t, err, &closed)
					require.Equal(t, events.CloseGoingAway, closed.Code)
					require.Equal(t, s == ours, closed.Remote)
				}
			})
		})
	}
}

func TestAnAgentThatDrainsRefusesNewStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _, agent := rawPair(t, tailnet.ListenConfig{})
		header, err := events.AppendOpenHeader(nil, web)
		require.NoError(t, err)
		s := rawStream(t, q, header)
		acceptStream(t, agent)
		drained := make(chan error)
		go func() { drained <- agent.Drain(context.Background(), time.Minute, "") }()
		synctest.Wait()
		late := rawStream(t, q, header) // by a peer that has not heard
		ended := make(chan error)
		go func() {
			_, err := agent.Accept(context.Background())
			ended <- err
		}()
		reply, err := events.ReadReply(events.NewByteReader(late))
		require.NoError(t, err)
		require.Equal(t, events.Reply{Code: events.ReplyRefused, Text: "the agent is going away"}, reply)
		s.CancelWrite(0)
		require.NoError(t, q.CloseWithError(0, ""))
		require.Error(t, <-drained)
		require.Error(t, <-ended)
	})
}

func TestAnOpenThatWaitsForRoomEndsWithADrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tunneler, agent := tailnettest.NewNetwork(0).Connect(t, tailnettest.Setup{Listen: tailnet.ListenConfig{MaxStreams: 1}})
		// Nobody accepts, so that the streams use up what QUIC allows.
		for range tailnet.StreamSlack {
			_, err := tunneler.Open(context.Background(), web)
			require.NoError(t, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := tunneler.Open(ctx, web)
		require.ErrorIs(t, err, context.DeadlineExceeded)

		waiting := make(chan error)
		go func() {
			_, err := tunneler.Open(context.Background(), web)
			waiting <- err
		}()
		synctest.Wait()
		go func() { _ = agent.Drain(context.Background(), time.Second, "") }()
		require.ErrorIs(t, <-waiting, tailnet.ErrDraining)
		<-agent.Done()
	})
}
