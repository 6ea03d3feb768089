package channel

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
)

// recorder notes what a server hears, in short: "logs 1 2", "ready", "stats 3".
type recorder struct {
	mu    sync.Mutex
	heard []string
}

func (r *recorder) note(m events.ChannelMessage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch m := m.(type) {
	case *events.AgentLogs:
		s := "logs"
		for _, e := range m.Entries {
			s += fmt.Sprint(" ", e.Seq)
		}
		r.heard = append(r.heard, s)
	case *events.AgentLifecycle:
		r.heard = append(r.heard, m.Lifecycle.String())
	case *events.AgentStats:
		r.heard = append(r.heard, fmt.Sprint("stats ", m.Tunnels))
	}
}

// take gives what was heard since the last take.
func (r *recorder) take() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	heard := r.heard
	r.heard = nil
	return heard
}

// listening is a coordinator that notes what it hears.
func listening(t *testing.T) (*coordinator, *recorder) {
	co, r := newCoordinator(t), new(recorder)
	co.handler = func(_ context.Context, _ *ServerConn, m events.ChannelMessage) { r.note(m) }
	return co, r
}

func lifecycle(l events.Lifecycle) *events.AgentLifecycle {
	return &events.AgentLifecycle{Lifecycle: l, ChangedAt: time.Now().UTC()}
}

func TestMessagesArriveInTheOrderOfTheirSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co, r := listening(t)
		n := newNetwork(t, co.ServeHTTP)
		n.setDown(true)
		c := start(t, n, nil)
		// Some wait for the first connection, some are sent on it.
		require.NoError(t, c.Send(t.Context(), lifecycle(events.LifecycleStarting)))
		require.NoError(t, c.Send(t.Context(), logs(1, 2)))
		require.True(t, c.TrySend(&events.AgentStats{Tunnels: 1}))
		n.setDown(false)
		time.Sleep(time.Second)
		<-co.conns
		require.NoError(t, c.Send(t.Context(), logs(3)))
		require.NoError(t, c.Send(t.Context(), lifecycle(events.LifecycleReady)))
		require.NoError(t, c.Send(t.Context(), logs())) // nothing to say
		require.Equal(t, []string{"starting", "logs 1 2", "stats 1", "logs 3", "ready"}, r.take())
	})
}

func TestLogsAreSentAgainUntilTheyAreAcknowledgedAndSoIsTheLastLifecycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co, r := listening(t)
		stored := uint64(0)
		co.opts.Hello = func(context.Context, *events.SessionHello) (*events.SessionWelcome, *events.SessionReject) {
			return &events.SessionWelcome{LogsStored: stored}, nil
		}
		n := newNetwork(t, co.ServeHTTP)
		var acks []uint64
		c := start(t, n, func(o *Options) {
			o.Handler = func(_ context.Context, m events.ChannelMessage) { acks = append(acks, m.(*events.AgentLogsAck).Seq) }
		})
		conn := <-co.conns
		for _, m := range []events.ChannelMessage{
			lifecycle(events.LifecycleCreated), lifecycle(events.LifecycleStarting),
			logs(1, 2), logs(3), logs(4, 5), &events.AgentStats{Tunnels: 1},
		} {
			require.NoError(t, c.Send(t.Context(), m))
		}
		require.Equal(t, []string{"created", "starting", "logs 1 2", "logs 3", "logs 4 5", "stats 1"}, r.take())
		require.NoError(t, conn.Send(t.Context(), &events.AgentLogsAck{Seq: 2}))
		synctest.Wait()
		require.Equal(t, []uint64{2}, acks)

		// What is acknowledged does not come again, what may be lost neither.
		n.setDown(true)
		synctest.Wait()
		require.NoError(t, c.Send(t.Context(), lifecycle(events.LifecycleReady)))
		n.setDown(false)
		<-co.conns
		require.Equal(t, []string{"logs 3", "logs 4 5", "starting", "ready"}, r.take())

		// What the server has stored does not either, though the
		// acknowledgement was lost; of a batch that it has in part, all does.
		stored = 4
		n.cut()
		conn = <-co.conns
		require.Equal(t, []string{"logs 4 5", "ready"}, r.take())
		require.NoError(t, conn.Send(t.Context(), &events.AgentLogsAck{Seq: 5}))
		synctest.Wait()

		n.cut()
		<-co.conns
		require.Equal(t, []string{"ready"}, r.take())
		require.Equal(t, uint64(3+1+1), c.Metrics().Snapshot().Resent-1)
	})
}

func TestAMessageWhoseWriteFailedIsSentOnTheNextConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co, r := listening(t)
		first := true
		mute := rawServer(t, func(ws *websocket.Conn) {
			if welcomeRaw(ws) == nil {
				<-t.Context().Done()
			}
		})
		n := newNetwork(t, func(w http.ResponseWriter, r *http.Request) {
			if first {
				first = false
				mute(w, r)
				return
			}
			co.ServeHTTP(w, r)
		})
		c := start(t, n, nil)
		synctest.Wait()
		require.NoError(t, c.Send(t.Context(), &events.AgentStats{Tunnels: 7}))
		time.Sleep(11 * time.Second) // the write times out, and a second later it is tried again
		<-co.conns
		require.Equal(t, []string{"stats 7"}, r.take())
	})
}

func TestTheOutboxIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co, r := listening(t)
		n := newNetwork(t, co.ServeHTTP)
		n.setDown(true)
		c := start(t, n, func(o *Options) { o.BackoffCeil = time.Second })
		for i := range DefaultOutboxLimit {
			require.True(t, c.TrySend(&events.AgentStats{Tunnels: i}))
		}
		require.False(t, c.TrySend(&events.AgentStats{}))
		require.False(t, c.TrySend(&events.AgentStats{}))
		require.Equal(t, uint64(2), c.Metrics().Snapshot().Dropped)

		// What must not be lost waits, as long as its context lets it.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, c.Send(ctx, lifecycle(events.LifecycleReady)), context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(began))

		sent := make(chan error, 1)
		go func() { sent <- c.Send(t.Context(), lifecycle(events.LifecycleReady)) }()
		n.setDown(false)
		require.NoError(t, <-sent)
		heard := r.take()
		require.Len(t, heard, DefaultOutboxLimit+1)
		require.Equal(t, "ready", heard[DefaultOutboxLimit])
	})
}

func TestOnlySoManyLogBatchesAreOnTheirWayAndNothingElseWaitsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co, r := listening(t)
		n := newNetwork(t, co.ServeHTTP)
		c := start(t, n, func(o *Options) { o.LogWindow = 2 })
		conn := <-co.conns
		require.NoError(t, c.Send(t.Context(), logs(1)))
		require.NoError(t, c.Send(t.Context(), logs(2)))
		require.False(t, c.TrySend(logs(3)))
		require.NoError(t, c.Send(t.Context(), lifecycle(events.LifecycleReady)))
		sent := make(chan error, 1)
		go func() { sent <- c.Send(t.Context(), logs(3)) }()
		require.Equal(t, []string{"logs 1", "logs 2", "ready"}, r.take())
		require.NoError(t, conn.Send(t.Context(), &events.AgentLogsAck{Seq: 1}))
		require.NoError(t, <-sent)
		require.Equal(t, []string{"logs 3"}, r.take())

		// A reconnect frees no place by itself, stored entries do.
		n.cut()
		<-co.conns
		require.Equal(t, []string{"logs 2", "logs 3", "ready"}, r.take())
		require.False(t, c.TrySend(logs(4)))
	})
}

func TestAMessageThatTheOtherSideWouldRefuseIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		c := start(t, newNetwork(t, co.ServeHTTP), nil)
		conn := <-co.conns
		huge := logs(1)
		huge.Entries[0].Output = strings.Repeat("x", events.MaxChannelMessage)
		require.ErrorIs(t, c.Send(t.Context(), huge), ErrTooLarge)
		require.False(t, c.TrySend(huge))
		require.ErrorIs(t, conn.Send(t.Context(), huge), ErrTooLarge)
		endless := lifecycle(events.LifecycleReady)
		endless.ChangedAt = time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)
		require.ErrorIs(t, c.Send(t.Context(), endless), events.ErrChannelMessage)
		synctest.Wait()
		require.True(t, c.Connected())
	})
}

// TestNothingIsLostOrDoubledWhateverBreaks lets the network break at random
// while an agent reports, and holds that the store ends up with every line once
// and in order, and with the last state, which came after its lines.
func TestNothingIsLostOrDoubledWhateverBreaks(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { loseNothing(t, seed) })
		})
	}
}

func loseNothing(t *testing.T, seed uint64) {
	random, jitter := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1))
	const lines = 400
	var mu sync.Mutex
	var stored []uint64
	last, repeated := events.LifecycleUnknown, 0
	latest := func() uint64 {
		if len(stored) == 0 {
			return 0
		}
		return stored[len(stored)-1]
	}
	co := newCoordinator(t)
	co.opts.Hello = func(context.Context, *events.SessionHello) (*events.SessionWelcome, *events.SessionReject) {
		mu.Lock()
		defer mu.Unlock()
		return &events.SessionWelcome{LogsStored: latest()}, nil
	}
	co.handler = func(ctx context.Context, c *ServerConn, m events.ChannelMessage) {
		mu.Lock()
		defer mu.Unlock()
		switch m := m.(type) {
		case *events.AgentLogs:
			for _, e := range m.Entries {
				switch {
				case e.Seq <= latest():
					repeated++
				default:
					stored = append(stored, e.Seq)
				}
			}
			_ = c.Send(ctx, &events.AgentLogsAck{Seq: latest()}) // if it is lost, the welcome says it
		case *events.AgentLifecycle:
			if m.Lifecycle == events.LifecycleReady {
				assert.Len(t, stored, lines, "ready came before its lines")
			}
			last = m.Lifecycle
		}
	}
	n := newNetwork(t, co.ServeHTTP)
	c := start(t, n, func(o *Options) { o.Rand, o.LogWindow = jitter.Float64, 8 })

	calm := make(chan struct{})
	var chaos sync.WaitGroup
	chaos.Go(func() {
		for range 20 {
			time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
			n.setDown(true)
			time.Sleep(time.Duration(random.IntN(5000)) * time.Millisecond)
			n.setDown(false)
		}
		close(calm)
	})
	for seq := uint64(1); seq <= lines; {
		batch := logs(seq)
		for seq++; seq <= lines && seq%7 != 0; seq++ {
			batch.Entries = append(batch.Entries, logs(seq).Entries...)
		}
		require.NoError(t, c.Send(t.Context(), batch))
		time.Sleep(time.Duration(seq%5) * 100 * time.Millisecond)
	}
	require.NoError(t, c.Send(t.Context(), lifecycle(events.LifecycleReady)))
	chaos.Wait()
	<-calm
	require.NoError(t, c.Shutdown(t.Context()))
	require.NoError(t, c.wait())

	mu.Lock()
	defer mu.Unlock()
	for i, seq := range stored {
		require.Equal(t, uint64(i+1), seq)
	}
	require.Len(t, stored, lines)
	require.Equal(t, events.LifecycleReady, last)
	require.Zero(t, repeated, "the welcome says what is stored, so nothing comes twice")
	require.Positive(t, c.Metrics().Snapshot().Lost)
}

func TestShutdownDeliversWhatIsLeftAndSaysGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co, r := listening(t)
		n := newNetwork(t, co.ServeHTTP)
		n.setDown(true)
		c := start(t, n, nil)
		require.NoError(t, c.Send(t.Context(), logs(1)))
		require.NoError(t, c.Send(t.Context(), lifecycle(events.LifecycleOff)))
		ended := make(chan error, 1)
		go func() { ended <- c.Shutdown(t.Context()) }()
		synctest.Wait()
		require.ErrorIs(t, c.Send(t.Context(), logs(2)), ErrClosed)
		require.False(t, c.TrySend(logs(2)))
		n.setDown(false)
		conn := <-co.conns
		require.Equal(t, []string{"logs 1", "off"}, r.take())
		require.Empty(t, ended, "the line is not acknowledged")
		require.NoError(t, conn.Send(t.Context(), &events.AgentLogsAck{Seq: 1}))
		require.NoError(t, <-ended)
		require.NoError(t, c.wait())
		require.NoError(t, <-co.ends)
		require.NoError(t, c.Shutdown(t.Context()), "a second time changes nothing")
		require.Zero(t, co.opts.Metrics.Snapshot().Lost+c.Metrics().Snapshot().Lost)
	})
}

func TestShutdownWaitsNoLongerThanItMay(t *testing.T) {
	for name, c := range map[string]struct {
		down bool
		left int
		end  time.Duration
	}{
		"for a server that is not there":            {true, 2, 5 * time.Second},
		"for an acknowledgement that does not come": {false, 1, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				co, _ := listening(t)
				n := newNetwork(t, co.ServeHTTP)
				n.setDown(c.down)
				client := start(t, n, nil)
				require.NoError(t, client.Send(t.Context(), logs(1)))
				require.NoError(t, client.Send(t.Context(), lifecycle(events.LifecycleOff)))
				ctx, cancel := context.WithTimeout(t.Context(), c.end)
				defer cancel()
				began := time.Now()
				err := client.Shutdown(ctx)
				require.ErrorIs(t, err, ErrNotDelivered)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, fmt.Sprintf("delivered: %d", c.left))
				require.Equal(t, c.end, time.Since(began))
				require.NoError(t, client.wait())
			})
		})
	}
}

func TestShutdownDoesNotWaitForAServerThatDoesNotAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(t *testing.T, ws *websocket.Conn)
		limit time.Duration
	}{
		"the goodbye": {func(t *testing.T, ws *websocket.Conn) {
			if welcomeRaw(ws) == nil {
				ws.SetCloseHandler(func(int, string) error { return nil })
				_ = drain(ws)
				<-t.Context().Done()
			}
		}, farewell},
		"the hello": {func(t *testing.T, _ *websocket.Conn) { <-t.Context().Done() }, 0},
		"anything": {func(t *testing.T, ws *websocket.Conn) {
			if welcomeRaw(ws) == nil {
				<-t.Context().Done()
			}
		}, farewell},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, rawServer(t, func(ws *websocket.Conn) { c.serve(t, ws) }))
				client := start(t, n, nil)
				synctest.Wait()
				began := time.Now()
				require.NoError(t, client.Shutdown(t.Context()))
				require.Equal(t, c.limit, time.Since(began))
			})
		})
	}
}

func TestAClientThatNeverRanShutsDownAtOnceAndWillNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, nil)
		c, err := New(Options{
			URL:         func(context.Context) (string, error) { return "http://coordinator", nil },
			Token:       func(context.Context, bool) (string, error) { return "", nil },
			Hello:       events.SessionHello{AgentID: "agent"},
			DialContext: n.dial,
		})
		require.NoError(t, err)
		require.NoError(t, c.Shutdown(t.Context()))
		require.NoError(t, c.Run(t.Context()))
		require.False(t, c.Connected())
		require.Empty(t, c.Organization())
		_, ok := c.ClockOffset()
		require.False(t, ok)
	})
}
