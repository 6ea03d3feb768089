package channel

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
)

// connected is a client and the connection that the coordinator has to it.
func connected(t *testing.T, co *coordinator, change func(*Options)) (*running, *ServerConn) {
	t.Helper()
	c := start(t, newNetwork(t, co.ServeHTTP), change)
	conn := <-co.conns
	synctest.Wait()
	return c, conn
}

// answering makes the client answer each request as answer does.
func answering(c **running, answer func(*events.ConnectionRequest) *events.ConnectionResult) func(*Options) {
	return func(o *Options) {
		o.Handler = func(ctx context.Context, m events.ChannelMessage) {
			if result := answer(m.(*events.ConnectionRequest)); result != nil {
				go func() { _ = (*c).Send(ctx, result) }()
			}
		}
	}
}

func TestARequestIsAnsweredByItsID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		var c *running
		c, conn := connected(t, co, answering(&c, func(r *events.ConnectionRequest) *events.ConnectionResult {
			result := &events.ConnectionResult{RequestID: r.RequestID, KeyHash: "hash of " + r.SessionID}
			if r.SessionID == "bad" {
				result.Error = "no room"
			}
			return result
		}))
		for i := range 5 {
			session := fmt.Sprint("s", i)
			request := &events.ConnectionRequest{Kind: events.ConnectionTunnel, SessionID: session}
			result, err := conn.Request(t.Context(), request)
			require.NoError(t, err)
			require.Equal(t, "hash of "+session, result.KeyHash)
			require.NotEmpty(t, result.RequestID)
			require.Empty(t, request.RequestID, "the caller's request is left alone")
		}
		_, err := conn.Request(t.Context(), &events.ConnectionRequest{SessionID: "bad"})
		var refused *RefusedError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, "no room", refused.Reason)
		require.EqualError(t, err, "the agent refused: no room")
		require.True(t, c.Connected())
	})
}

func TestAnAnswerThatNobodyWaitsForIsCountedAndDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		var c *running
		c, conn := connected(t, co, answering(&c, func(r *events.ConnectionRequest) *events.ConnectionResult {
			time.Sleep(2 * time.Second)
			return &events.ConnectionResult{RequestID: r.RequestID}
		}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := conn.Request(ctx, &events.ConnectionRequest{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, uint64(1), co.opts.Metrics.Snapshot().LateResults)
		require.NoError(t, c.Send(t.Context(), &events.ConnectionResult{RequestID: "made up"}))
		synctest.Wait()
		require.Equal(t, uint64(2), co.opts.Metrics.Snapshot().LateResults)
		require.True(t, c.Connected())
	})
}

func TestOnlySoManyRequestsWaitAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		co.opts.MaxRequests = 2
		var c *running
		_, conn := connected(t, co, answering(&c, func(*events.ConnectionRequest) *events.ConnectionResult { return nil }))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		for i := range 2 {
			go func() {
				_, err := conn.Request(ctx, &events.ConnectionRequest{RequestID: fmt.Sprint("r", i)})
				ended <- err
			}()
		}
		synctest.Wait()
		_, err := conn.Request(t.Context(), &events.ConnectionRequest{})
		require.ErrorIs(t, err, ErrBusy)
		require.Equal(t, uint64(1), co.opts.Metrics.Snapshot().Busy)
		_, err = conn.Request(t.Context(), &events.ConnectionRequest{RequestID: "r0"})
		require.ErrorContains(t, err, "waiting for its answer already")
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		require.ErrorIs(t, <-ended, context.Canceled)

		go func() {
			_, err := conn.Request(t.Context(), &events.ConnectionRequest{RequestID: "r0"})
			ended <- err
		}()
		synctest.Wait()
		conn.Close(websocket.CloseServiceRestart, "")
		require.ErrorIs(t, <-ended, ErrClosed)
	})
}

func TestCloseSendsWhatWasQueuedBeforeAndTheClientComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		var acks []uint64
		var seen states
		c, conn := connected(t, co, func(o *Options) {
			o.OnState = seen.note
			o.Handler = func(_ context.Context, m events.ChannelMessage) { acks = append(acks, m.(*events.AgentLogsAck).Seq) }
		})
		for seq := uint64(1); seq <= 20; seq++ {
			require.NoError(t, conn.Send(t.Context(), &events.AgentLogsAck{Seq: seq}))
		}
		conn.Close(websocket.CloseServiceRestart, "the coordinator is shutting down")
		conn.Close(websocket.CloseInternalServerErr, "a second close changes nothing")
		require.ErrorIs(t, conn.Send(t.Context(), &events.AgentLogsAck{}), ErrClosed)
		require.NoError(t, <-co.ends)
		<-conn.Done()
		require.ErrorIs(t, conn.Send(t.Context(), &events.AgentLogsAck{}), ErrClosed)
		require.Len(t, acks, 20)
		var closed *websocket.CloseError
		require.ErrorAs(t, seen.down()[0].Err, &closed)
		require.Equal(t, websocket.CloseServiceRestart, closed.Code)
		require.Equal(t, "the coordinator is shutting down", closed.Text)
		<-co.conns
		synctest.Wait()
		require.True(t, c.Connected())
	})
}

func TestCloseDoesNotWaitForAnAgentThatDoesNotAnswer(t *testing.T) {
	for name, behave := range map[string]func(t *testing.T, ws *websocket.Conn){
		"it reads nothing": func(*testing.T, *websocket.Conn) {},
		"it answers no close": func(_ *testing.T, ws *websocket.Conn) {
			ws.SetCloseHandler(func(int, string) error { return nil })
			_ = drain(ws)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				co := newCoordinator(t)
				ws := rawAgent(t, newNetwork(t, co.ServeHTTP))
				say(t, ws, &events.SessionHello{AgentID: "agent"})
				_, err := hear(ws)
				require.NoError(t, err)
				conn := <-co.conns
				go behave(t, ws)
				synctest.Wait()
				began := time.Now()
				conn.Close(websocket.CloseNormalClosure, "")
				require.NoError(t, <-co.ends)
				require.Equal(t, farewell, time.Since(began))
			})
		})
	}
}

func TestCloseInterruptsAHandlerThatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		entered := make(chan struct{})
		co.handler = func(ctx context.Context, _ *ServerConn, _ events.ChannelMessage) {
			close(entered)
			<-ctx.Done()
		}
		c, conn := connected(t, co, nil)
		require.NoError(t, c.Send(t.Context(), &events.AgentStats{}))
		<-entered
		began := time.Now()
		conn.Close(websocket.CloseNormalClosure, "")
		require.NoError(t, <-co.ends)
		require.Equal(t, farewell, time.Since(began))
	})
}

func TestAConnectionThatIsClosedBeforeItRunsDoesNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan error, 1)
		n := newNetwork(t, func(w http.ResponseWriter, r *http.Request) {
			conn, err := Accept(w, r, ServerOptions{Hello: welcomeAll})
			if err == nil {
				conn.Close(websocket.CloseTryAgainLater, "too many agents")
				<-conn.Done()
				err = conn.Run(r.Context(), nil)
			}
			ends <- err
		})
		ws := rawAgent(t, n)
		say(t, ws, &events.SessionHello{AgentID: "agent"})
		_, err := hear(ws)
		require.NoError(t, err)
		require.True(t, websocket.IsCloseError(drain(ws), websocket.CloseTryAgainLater))
		require.ErrorIs(t, <-ends, ErrClosed)
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ends := make(chan error, 1)
		n := newNetwork(t, func(w http.ResponseWriter, r *http.Request) {
			conn, err := Accept(w, r, ServerOptions{Hello: welcomeAll})
			if err == nil {
				err = conn.Run(ctx, func(context.Context, events.ChannelMessage) {})
			}
			ends <- err
		})
		var seen states
		start(t, n, func(o *Options) { o.OnState = seen.note })
		synctest.Wait()
		cancel()
		require.NoError(t, <-ends)
		require.True(t, websocket.IsCloseError(errors.Unwrap(seen.down()[0].Err), websocket.CloseGoingAway))
	})
}

func TestAServerHoldsUpAnAgentByTakingItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		handled := 0
		co.handler = func(context.Context, *ServerConn, events.ChannelMessage) {
			time.Sleep(4 * time.Second) // a pipe has no room, so an agent's write takes as long
			handled++
		}
		c, _ := connected(t, co, nil)
		for i := range 10 {
			require.NoError(t, c.Send(t.Context(), &events.AgentStats{Tunnels: i}))
		}
		time.Sleep(10 * 4 * time.Second)
		synctest.Wait()
		require.Equal(t, 10, handled)
		require.True(t, c.Connected(), "a handler's time is not the agent's silence")
		require.Zero(t, c.Metrics().Snapshot().Lost)
	})
}

func TestWhatAStrangerSendsEndsTheConnectionWithACodeThatSaysWhy(t *testing.T) {
	hello := `{"type":"session.hello","data":{"agent_id":"agent"}}`
	text := func(s string) func(*websocket.Conn) error {
		return func(ws *websocket.Conn) error { return ws.WriteMessage(websocket.TextMessage, []byte(s)) }
	}
	for name, c := range map[string]struct {
		welcome bool
		send    func(*websocket.Conn) error
		code    int
	}{
		"no JSON for a hello":          {false, text("hello"), websocket.CloseInvalidFramePayloadData},
		"something else for a hello":   {false, text(`{"type":"agent.stats","data":{}}`), websocket.ClosePolicyViolation},
		"no JSON later":                {true, text("{"), websocket.CloseInvalidFramePayloadData},
		"data of another shape":        {true, text(`{"type":"agent.logs","data":{"entries":1}}`), websocket.CloseInvalidFramePayloadData},
		"a time that has no text form": {true, text(`{"type":"time.request","data":{"client_transmit_time":"9999-12-31T23:59:59-01:00"}}`), websocket.CloseInvalidFramePayloadData},
		"a binary message": {true, func(ws *websocket.Conn) error {
			return ws.WriteMessage(websocket.BinaryMessage, []byte(hello))
		}, websocket.CloseUnsupportedData},
		"a message that is too large": {true, func(ws *websocket.Conn) error {
			_ = ws.WriteMessage(websocket.TextMessage, []byte(strings.Repeat(" ", events.MaxChannelMessage+1))) // it is not taken whole
			return nil
		}, websocket.CloseMessageTooBig},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				co := newCoordinator(t)
				ws := rawAgent(t, newNetwork(t, co.ServeHTTP))
				if c.welcome {
					require.NoError(t, ws.WriteMessage(websocket.TextMessage, []byte(hello)))
					_, err := hear(ws)
					require.NoError(t, err)
				}
				closed := make(chan error, 1)
				go func() { closed <- drain(ws) }()
				require.NoError(t, c.send(ws))
				err := <-closed
				require.True(t, websocket.IsCloseError(err, c.code), "%v", err)
				_ = ws.Close()
				require.ErrorIs(t, <-co.ends, ErrProtocol)
			})
		})
	}
}

func TestAServerThatBreaksTheProtocolIsLeftAndTriedAgain(t *testing.T) {
	for name, serve := range map[string]func(t *testing.T, ws *websocket.Conn){
		"before the welcome": func(t *testing.T, ws *websocket.Conn) {
			if _, err := hear(ws); err == nil {
				say(t, ws, &events.OrgInfoResponse{})
			}
		},
		"after it": func(t *testing.T, ws *websocket.Conn) {
			if welcomeRaw(ws) == nil {
				_ = ws.WriteMessage(websocket.TextMessage, []byte("?"))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, rawServer(t, func(ws *websocket.Conn) {
					serve(t, ws)
					_ = drain(ws)
				}))
				var seen states
				start(t, n, func(o *Options) { o.OnState = seen.note })
				time.Sleep(time.Second)
				require.ErrorIs(t, seen.down()[0].Err, ErrProtocol)
				require.Greater(t, n.dialled(), 1)
			})
		})
	}
}

func TestMessagesThatAreUnknownOrOutOfPlaceAreCountedAndIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co, r := listening(t)
		ws := rawAgent(t, newNetwork(t, co.ServeHTTP))
		for _, m := range []string{
			`{"type":"session.greeting"}`, `{"type":"session.hello","data":{"agent_id":"agent"}}`,
		} {
			require.NoError(t, ws.WriteMessage(websocket.TextMessage, []byte(m)))
		}
		_, err := hear(ws)
		require.NoError(t, err)
		for _, m := range []string{
			`{"type":"agent.metadata","data":[1]}`, `{"type":"session.welcome"}`, `{"type":"session.hello"}`, `{"type":"agent.stats","data":{"tunnels":5}}`,
		} {
			require.NoError(t, ws.WriteMessage(websocket.TextMessage, []byte(m)))
		}
		require.Equal(t, []string{"stats 5"}, r.take())
		snapshot := co.opts.Metrics.Snapshot()
		require.Equal(t, uint64(2), snapshot.Unknown)
		require.Equal(t, uint64(2), snapshot.Unexpected)

		n := newNetwork(t, rawServer(t, func(ws *websocket.Conn) {
			if welcomeRaw(ws) != nil {
				return
			}
			for _, m := range []string{`{"type":"agent.metadata"}`, `{"type":"agent.stats"}`, `{"type":"session.welcome"}`} {
				_ = ws.WriteMessage(websocket.TextMessage, []byte(m))
			}
			_ = drain(ws)
		}))
		c := start(t, n, nil)
		synctest.Wait()
		require.True(t, c.Connected())
		require.Equal(t, uint64(1), c.Metrics().Snapshot().Unknown)
		require.Equal(t, uint64(2), c.Metrics().Snapshot().Unexpected)
	})
}

func TestAHelloBeyondItsLimitsIsRejected(t *testing.T) {
	long := strings.Repeat("x", maxHelloText+1)
	for name, hello := range map[string]*events.SessionHello{
		"no agent id":           {},
		"an endless agent id":   {AgentID: long},
		"an endless version":    {AgentID: "agent", Version: long},
		"an endless capability": {AgentID: "agent", Capabilities: []string{long}},
		"too many capabilities": {AgentID: "agent", Capabilities: make([]string, maxCapabilities+1)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				co := newCoordinator(t)
				ws := rawAgent(t, newNetwork(t, co.ServeHTTP))
				say(t, ws, hello)
				m, err := hear(ws)
				require.NoError(t, err)
				require.Equal(t, events.RejectBadHello, m.(*events.SessionReject).Code)
				require.True(t, websocket.IsCloseError(drain(ws), websocket.ClosePolicyViolation))
				var rejected *RejectError
				require.ErrorAs(t, <-co.ends, &rejected)
			})
		})
	}
}

func TestAnOwnerThatDecidesNothingLetsNobodyIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		co.opts.Hello = func(context.Context, *events.SessionHello) (*events.SessionWelcome, *events.SessionReject) {
			return nil, nil
		}
		ws := rawAgent(t, newNetwork(t, co.ServeHTTP))
		say(t, ws, &events.SessionHello{AgentID: "agent"})
		_, err := hear(ws)
		require.Error(t, err)
		require.ErrorContains(t, <-co.ends, "neither welcomed nor rejected")
	})
}

func TestOnlyAWebSocketWithoutAnOriginIsUpgraded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		n := newNetwork(t, co.ServeHTTP)
		d := websocket.Dialer{NetDialContext: n.dial}
		_, resp, err := d.Dial("ws://coordinator/channel", http.Header{"Origin": {"http://coordinator"}})
		require.ErrorIs(t, err, websocket.ErrBadHandshake)
		require.Equal(t, http.StatusForbidden, resp.StatusCode)
		require.Error(t, <-co.ends)

		transport := &http.Transport{DialContext: n.dial}
		defer transport.CloseIdleConnections()
		plain, err := (&http.Client{Transport: transport}).Get("http://coordinator/channel")
		require.NoError(t, err)
		require.NoError(t, plain.Body.Close())
		require.Equal(t, http.StatusBadRequest, plain.StatusCode)
		require.Error(t, <-co.ends)
		require.Equal(t, uint64(2), co.opts.Metrics.Snapshot().Failed)
	})
}

func TestAReasonIsCutToWhatACloseFrameHolds(t *testing.T) {
	for in, want := range map[string]int{
		strings.Repeat("a", 123):       123,
		strings.Repeat("a", 124):       123,
		strings.Repeat("a", 122) + "é": 122,
		strings.Repeat("é", 100):       122,
	} {
		require.Len(t, cutReason(in), want)
		require.True(t, strings.HasPrefix(in, cutReason(in)))
	}
}
