package channel

import (
	"context"
	"errors"
	"fmt"
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

func TestAClientConnectsSaysHelloAndAsksForClockAndOrganisation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		co.opts.Hello = func(_ context.Context, hello *events.SessionHello) (*events.SessionWelcome, *events.SessionReject) {
			return &events.SessionWelcome{SessionID: "for " + hello.AgentID, LogsStored: 7}, nil
		}
		var authorization, path string
		n := newNetwork(t, func(w http.ResponseWriter, r *http.Request) {
			authorization, path = r.Header.Get("Authorization"), r.URL.Path
			co.ServeHTTP(w, r)
		})
		var seen states
		c := start(t, n, func(o *Options) { o.OnState = seen.note })
		conn := <-co.conns
		synctest.Wait()

		require.True(t, c.Connected())
		require.Equal(t, "Bearer token", authorization)
		require.Equal(t, "/channel", path)
		require.Equal(t, &events.SessionHello{AgentID: "agent", Version: "1.0", Capabilities: []string{}}, conn.Hello())
		require.Equal(t, []State{{Connected: true, Welcome: &events.SessionWelcome{SessionID: "for agent", Capabilities: []string{}, LogsStored: 7}}}, seen.list)
		require.Equal(t, "org", c.Organization())
		offset, ok := c.ClockOffset()
		require.True(t, ok)
		require.Zero(t, offset)
		require.Equal(t, uint64(1), c.Metrics().Snapshot().Connected)

		c.cancel()
		require.ErrorIs(t, c.wait(), context.Canceled)
		require.False(t, c.Connected())
		require.NoError(t, <-co.ends)
	})
}

func TestTheClockOffsetIsMeasuredOnEachConnectAndAnIncompleteAnswerIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead := []time.Duration{time.Hour, 0, -time.Minute} // zero: it does not say
		connects := 0
		say := func(ws *websocket.Conn, m events.ChannelMessage) {
			wire, err := events.EncodeChannelMessage(m)
			assert.NoError(t, err)
			_ = ws.WriteMessage(websocket.TextMessage, wire) // the test may be over
		}
		n := newNetwork(t, rawServer(t, func(ws *websocket.Conn) {
			skew := ahead[min(connects, len(ahead)-1)]
			connects++
			if _, err := hear(ws); err != nil {
				return
			}
			say(ws, &events.SessionWelcome{})
			m, err := hear(ws)
			if err != nil {
				return
			}
			answer, org := &events.TimeResponse{ClientTransmit: m.(*events.TimeRequest).ClientTransmit}, ""
			time.Sleep(time.Second) // the way here
			if skew != 0 {
				answer.ServerReceive = time.Now().Add(skew)
				answer.ServerTransmit, org = answer.ServerReceive, "org"
			}
			time.Sleep(time.Second) // and back
			say(ws, answer)
			if _, err := hear(ws); err == nil {
				say(ws, &events.OrgInfoResponse{OrganizationID: org})
				_ = drain(ws)
			}
		}))
		c := start(t, n, nil)
		for i, want := range []time.Duration{time.Hour, time.Hour, -time.Minute} {
			time.Sleep(3 * time.Second)
			offset, ok := c.ClockOffset()
			require.True(t, ok)
			require.Equal(t, want, offset, "connection %d", i)
			require.Equal(t, "org", c.Organization(), "an empty one is ignored")
			n.cut()
			time.Sleep(time.Second << i) // the next attempt is then
		}
	})
}

func TestTheBackoffDoublesUpToItsCeilingLessAJitter(t *testing.T) {
	s := func(seconds ...float64) []time.Duration {
		var list []time.Duration
		for _, v := range seconds {
			list = append(list, time.Duration(v*float64(time.Second)))
		}
		return list
	}
	for name, c := range map[string]struct {
		random      float64
		floor, ceil time.Duration
		want        []time.Duration
	}{
		"without jitter":                       {0, 0, 0, s(1, 2, 4, 8, 16, 32, 60, 60)},
		"half of the jitter takes 15 % off":    {0.5, 0, 0, s(0.85, 1.7, 3.4, 6.8, 13.6, 27.2, 51, 51)},
		"all of the jitter takes 30 % off":     {1, 0, 0, s(0.7, 1.4, 2.8, 5.6, 11.2, 22.4, 42, 42)},
		"a floor for a server on this machine": {0, 100 * time.Millisecond, 0, s(0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60)},
		"a ceiling of its own":                 {0, 100 * time.Millisecond, time.Second, s(0.1, 0.2, 0.4, 0.8, 1, 1)},
		"a floor above the ceiling":            {0, 2 * time.Minute, time.Minute, s(120, 120)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, http.NotFound)
				n.setDown(true)
				var seen states
				start(t, n, func(o *Options) {
					o.BackoffFloor, o.BackoffCeil = c.floor, c.ceil
					o.Rand = func() float64 { return c.random }
					o.OnState = seen.note
				})
				total := time.Duration(0)
				for _, d := range c.want {
					total += d
				}
				time.Sleep(total)
				synctest.Wait()
				require.Equal(t, c.want, n.attempts())
				for i, state := range seen.down()[:len(c.want)] {
					require.ErrorIs(t, state.Err, errNetworkDown)
					require.Equal(t, c.want[i], state.Retry)
				}
			})
		})
	}
}

func TestTheBackoffBeginsAnewOnceAConnectionWasUpFor30Seconds(t *testing.T) {
	for name, c := range map[string]struct {
		up   time.Duration
		want []time.Duration // the delays after the third attempt succeeded and broke
	}{
		"it was up for just long enough": {30 * time.Second, []time.Duration{time.Second, 2 * time.Second}},
		"it was not":                     {30*time.Second - time.Nanosecond, []time.Duration{4 * time.Second, 8 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				co := newCoordinator(t)
				// The welcome takes its time, which does not count as up.
				co.opts.Hello = func(context.Context, *events.SessionHello) (*events.SessionWelcome, *events.SessionReject) {
					time.Sleep(5 * time.Second)
					return &events.SessionWelcome{}, nil
				}
				n := newNetwork(t, co.ServeHTTP)
				n.setDown(true)
				start(t, n, nil)
				time.Sleep(2500 * time.Millisecond) // attempts at 0 s and at 1 s
				n.setDown(false)
				time.Sleep(500 * time.Millisecond) // and at 3 s
				time.Sleep(5 * time.Second)
				<-co.conns
				time.Sleep(c.up)
				n.setDown(true)
				time.Sleep(20 * time.Second)
				synctest.Wait()
				delays := n.attempts()
				require.Equal(t, []time.Duration{time.Second, 2 * time.Second}, delays[:2])
				require.Equal(t, 5*time.Second+c.up+c.want[0], delays[2])
				require.Equal(t, c.want[1], delays[3])
			})
		})
	}
}

func TestTheAddressIsAskedForAtEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		n := newNetwork(t, co.ServeHTTP)
		var mu sync.Mutex
		address, err := "", errors.New("no server has written its address yet")
		set := func(a string, e error) {
			mu.Lock()
			defer mu.Unlock()
			address, err = a, e
		}
		var seen states
		c := start(t, n, func(o *Options) {
			o.URL = func(context.Context) (string, error) {
				mu.Lock()
				defer mu.Unlock()
				return address, err
			}
			o.OnState = seen.note
		})
		synctest.Wait()
		require.ErrorContains(t, seen.down()[0].Err, "no server has written its address yet")
		set("ftp://one", nil)
		time.Sleep(time.Second)
		synctest.Wait()
		require.ErrorContains(t, seen.down()[1].Err, "expected one with http, https, ws or wss")
		require.Zero(t, n.dialled())
		set("http://one:1/channel", nil)
		time.Sleep(2 * time.Second)
		<-co.conns
		set("ws://two:2/channel", nil)
		n.cut()
		<-co.conns
		require.Equal(t, []string{"one:1", "two:2"}, n.addrs)
		synctest.Wait()
		require.True(t, c.Connected())
	})
}

func TestAPermanentErrorOfTheOwnersEndsRun(t *testing.T) {
	cause := errors.New("the file is gone for good")
	for name, change := range map[string]func(*Options){
		"of the address": func(o *Options) { o.URL = func(context.Context) (string, error) { return "", events.Permanent(cause) } },
		"of the token": func(o *Options) {
			o.Token = func(context.Context, bool) (string, error) { return "", events.Permanent(cause) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, http.NotFound)
				c := start(t, n, change)
				require.ErrorIs(t, c.wait(), cause)
				require.Zero(t, n.dialled())
				require.ErrorIs(t, c.Send(t.Context(), logs(1)), ErrClosed)
			})
		})
	}
}

// tokens is a token source that notes how it is asked.
type tokens struct{ asked []bool }

func (k *tokens) next(_ context.Context, refused bool) (string, error) {
	k.asked = append(k.asked, refused)
	return fmt.Sprint("token", len(k.asked)), nil
}

func TestARefusedTokenIsReplacedAtOnceAndThenWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		good := "Bearer token3"
		n := newNetwork(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != good {
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = w.Write([]byte(`{"code":"unauthorized","message":"the token has expired"}`))
				return
			}
			co.ServeHTTP(w, r)
		})
		var source tokens
		var seen states
		c := start(t, n, func(o *Options) {
			o.Token = source.next
			o.OnState = seen.note
		})
		<-co.conns
		synctest.Wait()
		require.Equal(t, []bool{false, true, true}, source.asked)
		require.Equal(t, []time.Duration{0, 2 * time.Second}, n.attempts())
		require.ErrorIs(t, seen.down()[0].Err, ErrUnauthorized)
		require.EqualError(t, seen.down()[0].Err, "the token has expired (HTTP 401)")
		require.Equal(t, uint64(2), c.Metrics().Snapshot().Refused)

		// The token that was good is asked for as usual, until it is refused.
		good = "Bearer token5"
		n.cut()
		<-co.conns
		require.Equal(t, []bool{false, true, true, false, true}, source.asked)
	})
}

func TestAClientGivesUpAfterAsManyRefusedTokensAsItMay(t *testing.T) {
	for name, c := range map[string]struct {
		limit, want int
	}{
		"by default five":  {0, 5},
		"or as it is told": {2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
				var source tokens
				client := start(t, n, func(o *Options) { o.Token, o.MaxUnauthorized = source.next, c.limit })
				err := client.wait()
				require.ErrorIs(t, err, ErrUnauthorized)
				require.EqualError(t, err, "the server answered 401 Unauthorized")
				require.Len(t, source.asked, c.want)
			})
		})
	}
}

func TestWhatTheServerAnswersDecidesWhetherToTryAgain(t *testing.T) {
	for status, again := range map[int]bool{
		http.StatusBadRequest: false, http.StatusForbidden: false, http.StatusMethodNotAllowed: false,
		http.StatusGone: false, http.StatusUpgradeRequired: false,
		http.StatusOK: true, http.StatusFound: true, http.StatusNotFound: true, http.StatusTooManyRequests: true,
		http.StatusInternalServerError: true, http.StatusBadGateway: true, http.StatusServiceUnavailable: true,
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
				c := start(t, n, nil)
				time.Sleep(time.Hour)
				if again {
					require.Greater(t, n.dialled(), 50)
					return
				}
				var e *HandshakeError
				require.ErrorAs(t, c.wait(), &e)
				require.Equal(t, status, e.Status)
				require.Equal(t, 1, n.dialled())
				require.Equal(t, status == http.StatusForbidden, errors.Is(e, ErrUnauthorized))
			})
		})
	}
}

func TestTheServerMayPutAClientOff(t *testing.T) {
	for name, c := range map[string]struct {
		header string
		want   time.Duration
	}{
		"for some seconds":            {"7", 7 * time.Second},
		"for less than the backoff":   {"0", time.Second},
		"until a date":                {"date", 90 * time.Second},
		"until a date in the past":    {"Sat, 01 Jan 2000 00:00:00 GMT", time.Second},
		"for longer than it may":      {"999999", 5 * time.Minute},
		"with what is no time at all": {"soon", time.Second},
		"for less than nothing":       {"-5", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t, func(w http.ResponseWriter, _ *http.Request) {
					header := c.header
					if header == "date" {
						header = time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
					}
					w.Header().Set("Retry-After", header)
					w.WriteHeader(http.StatusServiceUnavailable)
				})
				start(t, n, nil)
				time.Sleep(c.want)
				synctest.Wait()
				require.Equal(t, []time.Duration{c.want}, n.attempts())
			})
		})
	}
}

func TestARejectedHelloEndsRunOnlyIfItCannotBeMended(t *testing.T) {
	reject := &events.SessionReject{Code: events.RejectBuildOver, Message: "build 3 is over"}
	for name, c := range map[string]struct {
		retryable, later bool
	}{
		"at the hello":               {},
		"at the hello, to come back": {retryable: true},
		"later":                      {later: true},
		"later, to come back":        {retryable: true, later: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reject := *reject
				reject.Retryable = c.retryable
				co := newCoordinator(t)
				if !c.later {
					co.opts.Hello = func(context.Context, *events.SessionHello) (*events.SessionWelcome, *events.SessionReject) {
						return nil, &reject
					}
				}
				n := newNetwork(t, co.ServeHTTP)
				client := start(t, n, nil)
				if c.later {
					conn := <-co.conns
					synctest.Wait()
					conn.Reject(&reject)
				}
				end := <-co.ends
				if c.later {
					require.NoError(t, end)
				} else {
					var rejected *RejectError
					require.ErrorAs(t, end, &rejected)
				}
				synctest.Wait()
				require.Equal(t, uint64(1), client.Metrics().Snapshot().Rejected)
				require.Equal(t, uint64(1), co.opts.Metrics.Snapshot().Rejected)
				if c.retryable {
					time.Sleep(time.Second)
					synctest.Wait()
					require.Equal(t, []time.Duration{time.Second}, n.attempts())
					return
				}
				err := client.wait()
				var rejected *RejectError
				require.ErrorAs(t, err, &rejected)
				require.Equal(t, &reject, rejected.Reject)
				require.EqualError(t, err, "build 3 is over")
				require.NotErrorIs(t, err, ErrUnauthorized)
			})
		})
	}
}

func TestARejectedHelloForWantOfRightsIsUnauthorized(t *testing.T) {
	err := &RejectError{Reject: &events.SessionReject{Code: events.RejectUnauthorized}}
	require.ErrorIs(t, err, ErrUnauthorized)
	require.EqualError(t, err, "the server refused the session: unauthorized")
	var message *events.SessionReject
	require.ErrorAs(t, err, &message)
}

func TestOptionsThatAreMissingAreNoticed(t *testing.T) {
	for name, spoil := range map[string]func(*Options){
		"no address":  func(o *Options) { o.URL = nil },
		"no token":    func(o *Options) { o.Token = nil },
		"no agent id": func(o *Options) { o.Hello.AgentID = "" },
	} {
		opts := Options{
			URL:   func(context.Context) (string, error) { return "", nil },
			Token: func(context.Context, bool) (string, error) { return "", nil },
			Hello: events.SessionHello{AgentID: "agent"},
		}
		_, err := New(opts)
		require.NoError(t, err)
		spoil(&opts)
		_, err = New(opts)
		require.Error(t, err, name)
	}
}

func TestAChannelRunsOnlyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		co := newCoordinator(t)
		c := start(t, newNetwork(t, co.ServeHTTP), nil)
		conn := <-co.conns
		synctest.Wait()
		require.ErrorContains(t, c.Run(t.Context()), "only once")
		require.ErrorContains(t, conn.Run(t.Context(), nil), "only once")
	})
}

func TestAddressesAreThoseOfWebSockets(t *testing.T) {
	for raw, want := range map[string]string{
		"http://127.0.0.1:7443/api/v1/agent-channel/ws": "ws://127.0.0.1:7443/api/v1/agent-channel/ws",
		"https://example.com/a?b=c#d":                   "wss://example.com/a?b=c",
		"ws://[::1]:80/":                                "ws://[::1]:80/",
		"wss://example.com":                             "wss://example.com",
		"ftp://example.com":                             "",
		"//example.com":                                 "",
		"http:///path":                                  "",
		"https://user:secret@example.com":               "",
		"http://example.com:port":                       "",
	} {
		got, err := websocketURL(raw)
		require.Equal(t, want, got, raw)
		require.Equal(t, want == "", err != nil, raw)
		if err != nil {
			require.False(t, strings.Contains(err.Error(), "secret"), "%v shows a password", err)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, header := range []string{"", "7", " 7 ", "-1", "4294967296", "Sat, 01 Jan 2000 00:00:00 GMT", "soon"} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) { require.GreaterOrEqual(t, retryAfter(header), time.Duration(0)) })
}

func FuzzWebsocketURL(f *testing.F) {
	for _, raw := range []string{"http://a", "wss://a:1/b?c#d", "http://u:p@a", "%", "http://[::1", ":"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := websocketURL(raw)
		if err != nil {
			require.Empty(t, got)
			return
		}
		again, err := websocketURL(got)
		require.NoError(t, err)
		require.Equal(t, got, again)
	})
}
