package client

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
)

// recorder keeps what a watch emits.
type recorder struct{ events []events.Event }

func (r *recorder) emit(e events.Event) { r.events = append(r.events, e) }

func (r *recorder) states() (states []events.WatchState) {
	for _, e := range r.events {
		if u, ok := e.(events.WatchUpdate); ok {
			states = append(states, u.State)
		}
	}
	return states
}

func TestWatchMessagesBecomeTheMachinesEvents(t *testing.T) {
	bubble(t, func(t *testing.T) {
		build := events.BuildUpdate{Number: 1, Transition: events.TransitionStart, Status: events.JobSucceeded}
		agent := events.AgentUpdate{ID: "a", Name: "main", Build: 1, Lifecycle: events.LifecycleReady, Status: events.AgentConnected}
		line := events.Log{ID: 7, Level: events.LogInfo, Source: "script", Stage: "startup", Output: "hello"}
		c := serve(t, elsewhere, func(w http.ResponseWriter, r *http.Request) {
			require.Equal(t, "Bearer secret", r.Header.Get("Authorization"))
			require.Equal(t, "/api/v1/workspaces/demo/agent-connection-watch?after_agent_log=6&after_build_log=5&agent_name=main", r.URL.RequestURI())
			s := watchServer(t, w, r)
			s.send(events.WatchMessage{BuildLog: &line})
			s.send(events.WatchMessage{BuildUpdate: &build})
			s.send(events.WatchMessage{AgentLog: &line})
			s.send(events.WatchMessage{AgentUpdate: &agent})
			s.send(events.WatchMessage{Error: &events.WatchError{Code: events.WatchNotFound, Message: "deleted"}})
			s.wait()
		})
		var rec recorder
		err := c.Watch(t.Context(), "demo", WatchOptions{Agent: "main", AfterBuildLog: 5, AfterAgentLog: 6, Emit: rec.emit})
		var gone *events.WatchError
		require.ErrorAs(t, err, &gone)
		require.Equal(t, events.WatchNotFound, gone.Code)
		require.Equal(t, []events.Event{
			events.WatchUpdate{State: events.WatchUp},
			events.BuildLog{Log: line}, build, events.AgentLog{Log: line}, agent,
		}, rec.events)
	})
}

func TestAWatchEndsWithWhatTryingAgainCannotMend(t *testing.T) {
	for name, status := range map[string]int{
		"no token": http.StatusUnauthorized, "wrong scope": http.StatusForbidden, "no such workspace": http.StatusNotFound,
		"bad parameters": http.StatusBadRequest,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := serve(t, elsewhere, func(w http.ResponseWriter, _ *http.Request) {
					reply(w, status, api.Error{Code: codeFor(status), Message: "no", Nearest: []string{"demo"}})
				})
				var rec recorder
				err := c.Watch(t.Context(), "demo", WatchOptions{Emit: rec.emit})
				var e *api.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, status, e.Status)
				require.Equal(t, []string{"demo"}, e.Nearest)
				require.Empty(t, rec.events)
			})
		})
	}
}

func TestAWatchErrorDecidesByRetryable(t *testing.T) {
	for _, code := range []events.WatchErrorCode{
		events.WatchTooManyAgents, events.WatchNameNotFound, events.WatchUnauthorized, events.WatchNotFound,
		events.WatchNoAgents, events.WatchServerShutdown, events.WatchDatabase, events.WatchInternal,
	} {
		for _, retryable := range []bool{true, false} {
			t.Run(string(code), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					calls := 0
					c := serve(t, elsewhere, func(w http.ResponseWriter, r *http.Request) {
						calls++
						s := watchServer(t, w, r)
						s.send(events.WatchMessage{Error: &events.WatchError{Code: code, Retryable: retryable && calls == 1, Message: "no"}})
						s.wait()
					})
					var rec recorder
					err := c.Watch(t.Context(), "demo", WatchOptions{Emit: rec.emit})
					var e *events.WatchError
					require.ErrorAs(t, err, &e)
					require.Equal(t, code, e.Code)
					if retryable {
						require.Equal(t, 2, calls)
						require.Equal(t, []events.WatchState{events.WatchUp, events.WatchRetrying, events.WatchUp}, rec.states())
						require.Equal(t, &events.WatchError{Code: code, Retryable: true, Message: "no"}, rec.events[1].(events.WatchUpdate).Err)
					} else {
						require.Equal(t, 1, calls)
					}
				})
			})
		}
	}
}

func TestASilentWatchIsDeadAfter45Seconds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var at []time.Duration
		started := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		c := serve(t, elsewhere, func(w http.ResponseWriter, r *http.Request) {
			at = append(at, time.Since(started))
			if len(at) == 2 {
				cancel()
				return
			}
			watchServer(t, w, r).wait()
		})
		var rec recorder
		require.Equal(t, context.Canceled, c.Watch(ctx, "demo", WatchOptions{Emit: rec.emit}))
		require.Equal(t, []time.Duration{0, 45*time.Second + 250*time.Millisecond}, at)
		require.Equal(t, events.WatchRetrying, rec.states()[1])
	})
}

func TestPingsKeepAWatchAliveAndArePonged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var connections, pongs atomic.Int32
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute+time.Second)
		defer cancel()
		c := serve(t, elsewhere, func(w http.ResponseWriter, r *http.Request) {
			connections.Add(1)
			s := watchServer(t, w, r)
			s.SetPongHandler(func(string) error { pongs.Add(1); return nil })
			stop := make(chan struct{})
			go func() {
				defer close(stop)
				s.wait()
			}()
			for tick := time.NewTicker(15 * time.Second); ; {
				select {
				case <-tick.C:
					_ = s.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second))
				case <-stop:
					return
				}
			}
		})
		require.Equal(t, context.DeadlineExceeded, c.Watch(ctx, "demo", WatchOptions{Emit: func(events.Event) {}}))
		require.EqualValues(t, 1, connections.Load())
		require.EqualValues(t, 40, pongs.Load())
	})
}

func TestTheTimeBetweenAttemptsDoublesUpToItsLimit(t *testing.T) {
	ms := time.Millisecond
	for base, want := range map[string][]time.Duration{
		elsewhere:               {250 * ms, 500 * ms, 1000 * ms, 2000 * ms, 4000 * ms, 8000 * ms, 15000 * ms, 15000 * ms},
		"http://127.0.0.1:7443": {250 * ms, 500 * ms, 1000 * ms, 2000 * ms, 2000 * ms},
		"http://localhost:7443": {250 * ms, 500 * ms, 1000 * ms, 2000 * ms, 2000 * ms},
		"http://[::1]:7443":     {250 * ms, 500 * ms, 1000 * ms, 2000 * ms, 2000 * ms},
	} {
		t.Run(base, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var gaps []time.Duration
				var last time.Time
				c := New(FixedURL(base), StaticToken("x"), Options{
					Random: func() float64 { return 0 },
					DialContext: func(context.Context, string, string) (net.Conn, error) {
						if !last.IsZero() {
							gaps = append(gaps, time.Since(last))
						}
						if last = time.Now(); len(gaps) == len(want) {
							cancel()
						}
						return nil, errRefused
					},
				})
				var rec recorder
				require.Equal(t, context.Canceled, c.Watch(ctx, "demo", WatchOptions{Emit: rec.emit}))
				require.Equal(t, want, gaps)
				require.Equal(t, []events.WatchState{events.WatchRetrying}, rec.states(), "said once, not at each attempt")
			})
		})
	}
}

func TestJitterTakesUpToThirtyPercentOff(t *testing.T) {
	for random, want := range map[float64]time.Duration{0: time.Second, 0.5: 850 * time.Millisecond, 1: 700 * time.Millisecond} {
		b := backoff{min: time.Second, max: time.Minute, random: func() float64 { return random }}
		require.Equal(t, want, b.delay(1))
	}
	require.Equal(t, time.Minute, backoff{min: time.Second, max: time.Minute, random: func() float64 { return 0 }}.delay(1000))
}

func TestOnlyAConnectionThatLastedResetsTheBackoff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var gaps []time.Duration
		var ended time.Time
		c := serve(t, elsewhere, func(w http.ResponseWriter, r *http.Request) {
			if !ended.IsZero() {
				gaps = append(gaps, time.Since(ended))
			}
			if len(gaps) == 4 {
				cancel()
				return
			}
			s := watchServer(t, w, r)
			if len(gaps) == 3 {
				time.Sleep(20 * time.Second) // longer than the longest wait
			}
			ended = time.Now()
			s.Close()
		})
		require.Equal(t, context.Canceled, c.Watch(ctx, "demo", WatchOptions{Emit: func(events.Event) {}}))
		require.Equal(t, []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 250 * time.Millisecond}, gaps)
	})
}

func TestLogsResumeAfterTheLastLineAndNoneComesTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var after []string
		c := serve(t, elsewhere, func(w http.ResponseWriter, r *http.Request) {
			after = append(after, r.URL.Query().Get("after_build_log"))
			s := watchServer(t, w, r)
			switch len(after) {
			case 1:
				s.buildLog(3)
				s.buildLog(4)
			case 2:
				s.buildLog(4)
				s.buildLog(9)
			case 3:
				s.send(events.WatchMessage{Error: &events.WatchError{Code: events.WatchNotFound, Message: "deleted"}})
			}
			s.Close()
		})
		var rec recorder
		require.Error(t, c.Watch(t.Context(), "demo", WatchOptions{Emit: rec.emit}))
		var ids []int64
		for _, e := range rec.events {
			if l, ok := e.(events.BuildLog); ok {
				ids = append(ids, l.ID)
			}
		}
		require.Equal(t, []int64{3, 4, 9}, ids)
		require.Equal(t, []string{"", "4", "9"}, after)
	})
}

func TestAServerThatBreaksTheProtocolIsTriedAgain(t *testing.T) {
	for name, say := range map[string]func(s *fakeWatch) error{
		"nonsense":           func(s *fakeWatch) error { return s.WriteMessage(websocket.TextMessage, []byte("{")) },
		"an empty message":   func(s *fakeWatch) error { return s.WriteMessage(websocket.TextMessage, []byte("{}")) },
		"a binary message":   func(s *fakeWatch) error { return s.WriteMessage(websocket.BinaryMessage, []byte("{}")) },
		"a message of 1 MiB": func(s *fakeWatch) error { return s.WriteMessage(websocket.TextMessage, make([]byte, 1<<20)) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				calls := 0
				c := serve(t, elsewhere, func(w http.ResponseWriter, r *http.Request) {
					if calls++; calls == 2 {
						cancel()
						return
					}
					s := watchServer(t, w, r)
					_ = say(s)
					s.wait()
				})
				var rec recorder
				require.Equal(t, context.Canceled, c.Watch(ctx, "demo", WatchOptions{Emit: rec.emit}))
				var u *UnreachableError
				require.ErrorAs(t, rec.events[1].(events.WatchUpdate).Err, &u)
			})
		})
	}
}

func TestTheEndOfTheContextEndsAWatchAtOnce(t *testing.T) {
	for name, handler := range map[string]func(t *testing.T, w http.ResponseWriter, r *http.Request){
		"while it waits for the handshake": func(_ *testing.T, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"while it waits for a message":     func(t *testing.T, w http.ResponseWriter, r *http.Request) { watchServer(t, w, r).wait() },
		"while it waits to try again": func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := serve(t, elsewhere, func(w http.ResponseWriter, r *http.Request) { handler(t, w, r) })
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				started := time.Now()
				require.Equal(t, context.DeadlineExceeded, c.Watch(ctx, "demo", WatchOptions{Emit: func(events.Event) {}}))
				require.Equal(t, 5*time.Second, time.Since(started))
			})
		})
	}
}
