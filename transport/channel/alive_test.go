package channel

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
)

func TestAClientLeavesAServerThatIsSilentFor45Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, rawServer(t, func(ws *websocket.Conn) {
			if welcomeRaw(ws) == nil {
				_ = drain(ws)
			}
		}))
		var seen states
		start(t, n, func(o *Options) { o.OnState = seen.note })
		time.Sleep(45*time.Second - time.Nanosecond)
		require.Empty(t, seen.down())
		time.Sleep(time.Nanosecond)
		require.Len(t, seen.down(), 1)
		require.ErrorIs(t, seen.down()[0].Err, ErrSilent)
	})
}

func TestAPingOrAMessageIsASignOfLifeToTheClient(t *testing.T) {
	for name, sign := range map[string]func(t *testing.T, ws *websocket.Conn){
		"a ping": func(_ *testing.T, ws *websocket.Conn) {
			_ = ws.WriteControl(websocket.PingMessage, []byte("?"), time.Now().Add(time.Second))
		},
		"a pong": func(_ *testing.T, ws *websocket.Conn) {
			_ = ws.WriteControl(websocket.PongMessage, nil, time.Now().Add(time.Second))
		},
		"a message": func(t *testing.T, ws *websocket.Conn) { say(t, ws, &events.OrgInfoResponse{}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, rawServer(t, func(ws *websocket.Conn) {
					if welcomeRaw(ws) != nil {
						return
					}
					go func() { _ = drain(ws) }()
					for range 3 {
						time.Sleep(44 * time.Second)
						sign(t, ws)
					}
					<-t.Context().Done()
				}))
				c := start(t, n, nil)
				time.Sleep(3*44*time.Second + 45*time.Second - time.Nanosecond)
				synctest.Wait()
				require.True(t, c.Connected())
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				require.False(t, c.Connected())
			})
		})
	}
}

func TestAServerPingsEvery15SecondsAndLeavesAfter15WithoutAPong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		n := newNetwork(t, co.ServeHTTP)
		ws := rawAgent(t, n)
		began := time.Now()
		var pings []time.Duration
		answered := 4
		ws.SetPingHandler(func(string) error {
			pings = append(pings, time.Since(began))
			if len(pings) > answered {
				return nil
			}
			return ws.WriteControl(websocket.PongMessage, nil, time.Now().Add(time.Second))
		})
		say(t, ws, &events.SessionHello{AgentID: "agent"})
		require.True(t, websocket.IsCloseError(drain(ws), websocket.CloseGoingAway))
		require.Equal(t, 60*time.Second+30*time.Second, time.Since(began), "from the last pong on")
		require.Equal(t, []time.Duration{15 * time.Second, 30 * time.Second, 45 * time.Second, 60 * time.Second, 75 * time.Second}, pings[:5], "and perhaps one at the moment of the end")
		require.ErrorIs(t, <-co.ends, ErrSilent)
		require.Equal(t, uint64(1), co.opts.Metrics.Snapshot().Lost)
	})
}

func TestTwoHealthyEndsStayTogetherForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		n := newNetwork(t, co.ServeHTTP)
		c := start(t, n, nil)
		time.Sleep(24 * time.Hour)
		require.True(t, c.Connected())
		require.Equal(t, 1, n.dialled())
	})
}

func TestAHelloMustComeWithinTenSecondsWhateverElseComes(t *testing.T) {
	for name, behave := range map[string]func(ws *websocket.Conn){
		"when nothing comes": func(*websocket.Conn) {},
		"when only pings come": func(ws *websocket.Conn) {
			for ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)) == nil {
				time.Sleep(time.Second)
			}
		},
		"when only unknown messages come": func(ws *websocket.Conn) {
			for ws.WriteMessage(websocket.TextMessage, []byte(`{"type":"session.greeting"}`)) == nil {
				time.Sleep(time.Second)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				co := newCoordinator(t)
				n := newNetwork(t, co.ServeHTTP)
				ws := rawAgent(t, n)
				began := time.Now()
				var agent sync.WaitGroup
				agent.Go(func() { _ = drain(ws) })
				agent.Go(func() { behave(ws) })
				require.ErrorIs(t, <-co.ends, ErrSilent)
				require.Equal(t, 10*time.Second, time.Since(began))
				agent.Wait()
			})
		})
	}
}

func TestAWelcomeMustComeWithinTenSecondsWhateverElseComes(t *testing.T) {
	for name, behave := range map[string]func(ws *websocket.Conn){
		"when nothing comes": func(*websocket.Conn) {},
		"when only pings come": func(ws *websocket.Conn) {
			for ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)) == nil {
				time.Sleep(time.Second)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, rawServer(t, func(ws *websocket.Conn) {
					go func() { _ = drain(ws) }()
					behave(ws)
					<-t.Context().Done()
				}))
				var seen states
				c := start(t, n, func(o *Options) { o.OnState = seen.note })
				time.Sleep(11 * time.Second)
				require.Len(t, seen.down(), 1)
				require.ErrorIs(t, seen.down()[0].Err, ErrSilent)
				require.Equal(t, []time.Duration{11 * time.Second}, n.attempts())
				require.Equal(t, uint64(1), c.Metrics().Snapshot().Failed)
			})
		})
	}
}

func TestAServerThatDoesNotAnswerAtAllIsLeftAfterTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, func(http.ResponseWriter, *http.Request) { <-t.Context().Done() })
		start(t, n, nil)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		require.Equal(t, []time.Duration{11 * time.Second}, n.attempts())
	})
}

func TestAWriteThatIsStuckForTenSecondsLosesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, rawServer(t, func(ws *websocket.Conn) {
			if welcomeRaw(ws) == nil {
				<-t.Context().Done() // and reads no more: a pipe has no room
			}
		}))
		var seen states
		c := start(t, n, func(o *Options) { o.OnState = seen.note })
		synctest.Wait()
		require.NoError(t, c.Send(t.Context(), logs(1)))
		time.Sleep(10*time.Second - time.Nanosecond)
		require.Empty(t, seen.down())
		time.Sleep(time.Nanosecond)
		require.Len(t, seen.down(), 1)
		require.ErrorContains(t, seen.down()[0].Err, "send agent.logs")
	})
}

func TestAServersWriteThatIsStuckForTenSecondsLosesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		n := newNetwork(t, co.ServeHTTP)
		ws := rawAgent(t, n)
		say(t, ws, &events.SessionHello{AgentID: "agent"})
		_, err := hear(ws)
		require.NoError(t, err)
		conn := <-co.conns
		began := time.Now()
		require.NoError(t, conn.Send(t.Context(), &events.AgentLogsAck{Seq: 1}))
		require.ErrorContains(t, <-co.ends, "send agent.logs.ack")
		require.Equal(t, 10*time.Second, time.Since(began))
		<-conn.Done()
	})
}

// TestALargeMessageOnASlowLineIsASignOfLife sends one message that takes longer
// than silence may last.
func TestALargeMessageOnASlowLineIsASignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		got := make(chan int, 1)
		co.handler = func(_ context.Context, _ *ServerConn, m events.ChannelMessage) {
			got <- len(m.(*events.AgentLogs).Entries[0].Output)
		}
		n := newNetwork(t, co.ServeHTTP)
		var slow net.Conn
		d := websocket.Dialer{NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			var err error
			slow, err = n.dial(ctx, network, addr)
			return slow, err
		}}
		ws, _, err := d.Dial("ws://coordinator/", nil)
		require.NoError(t, err)
		defer ws.Close()
		say(t, ws, &events.SessionHello{AgentID: "agent"})
		_, err = hear(ws)
		require.NoError(t, err)
		go func() { _, _ = bytes.NewBuffer(nil).ReadFrom(slow) }() // pings, unanswered

		m := logs(1)
		m.Entries[0].Output = strings.Repeat("x", 100<<10)
		wire, err := events.EncodeChannelMessage(m)
		require.NoError(t, err)
		frame := clientFrame(wire)
		began := time.Now()
		for len(frame) > 0 {
			part := min(len(frame), 20<<10)
			_, err := slow.Write(frame[:part])
			require.NoError(t, err)
			frame = frame[part:]
			if len(frame) > 0 {
				time.Sleep(25 * time.Second)
			}
		}
		require.Equal(t, 100<<10, <-got)
		require.Greater(t, time.Since(began), 2*serverSilence)
	})
}

// clientFrame is one text frame of a client as its bytes (RFC 6455, section
// 5.2), masked with zeros, which leave it as it is.
func clientFrame(payload []byte) []byte {
	frame := []byte{0x81, 0x80 | 127, 0, 0, 0, 0, byte(len(payload) >> 24), byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), 0, 0, 0, 0}
	return append(frame, payload...)
}
