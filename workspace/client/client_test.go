package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
)

const elsewhere = "http://tunnel.example"

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// bubble runs f with time that passes by itself.
func bubble(t *testing.T, f func(t *testing.T)) { synctest.Test(t, f) }

func TestEachMethodCallsItsRoute(t *testing.T) {
	ctx := t.Context()
	for want, call := range map[string]func(c *Client) error{
		"GET /api/v1/whoami":         func(c *Client) error { _, err := c.Whoami(ctx); return err },
		"GET /api/v1/templates":      func(c *Client) error { _, err := c.Templates(ctx); return err },
		"GET /api/v1/templates/demo": func(c *Client) error { _, err := c.Template(ctx, "demo"); return err },
		"POST /api/v1/templates/check": func(c *Client) error {
			_, err := c.CheckTemplate(ctx, api.CheckTemplate{Definition: "name: x"})
			return err
		},
		"GET /api/v1/workspaces":  func(c *Client) error { _, err := c.Workspaces(ctx); return err },
		"POST /api/v1/workspaces": func(c *Client) error { _, err := c.CreateWorkspace(ctx, api.CreateWorkspace{}); return err },
		"GET /api/v1/workspaces/a%2Fb": func(c *Client) error {
			_, err := c.Workspace(ctx, "a/b")
			return err
		},
		"GET /api/v1/workspaces/w/builds?before=9&limit=3": func(c *Client) error { _, err := c.Builds(ctx, "w", 9, 3); return err },
		"POST /api/v1/workspaces/w/builds": func(c *Client) error {
			_, err := c.CreateBuild(ctx, "w", api.CreateBuild{Transition: events.TransitionStop})
			return err
		},
		"GET /api/v1/workspaces/w/builds/7": func(c *Client) error { _, err := c.Build(ctx, "w", 7); return err },
		"GET /api/v1/workspaces/w/builds/7/logs?after=5": func(c *Client) error {
			_, err := c.BuildLogs(ctx, "w", 7, LogOptions{After: 5})
			return err
		},
		"GET /api/v1/workspaces/w/agents/main/logs?limit=2": func(c *Client) error {
			_, err := c.AgentLogs(ctx, "w", "main", LogOptions{Limit: 2})
			return err
		},
		"POST /api/v1/workspaces/w/connect": func(c *Client) error { _, err := c.Connect(ctx, "w", api.Connect{}); return err },
		"POST /api/v1/workspaces/w/agent-token": func(c *Client) error {
			_, err := c.AgentToken(ctx, "w", api.CreateAgentToken{})
			return err
		},
		"GET /api/v1/agent/manifest": func(c *Client) error { _, err := c.Manifest(ctx); return err },
		"POST /api/v1/agent/token":   func(c *Client) error { _, err := c.RenewToken(ctx); return err },
	} {
		t.Run(want, func(t *testing.T) {
			var got, auth string
			c := serve(t, elsewhere+"/", func(w http.ResponseWriter, r *http.Request) {
				got, auth = r.Method+" "+r.URL.RequestURI(), r.Header.Get("Authorization")
				reply(w, http.StatusOK, struct{}{})
			})
			require.NoError(t, call(c))
			require.Equal(t, want, got)
			require.Equal(t, "Bearer secret", auth)
		})
	}
}

func TestARefusalIsAnAPIErrorWithItsStatus(t *testing.T) {
	c := serve(t, elsewhere, func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusNotFound, api.Error{Code: api.CodeNotFound, Message: "no such workspace", Nearest: []string{"demo"}})
	})
	_, err := c.Workspace(t.Context(), "demp")
	var e *api.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, &api.Error{
		Code: api.CodeNotFound, Message: "no such workspace", Nearest: []string{"demo"}, Status: http.StatusNotFound,
	}, e)
}

func TestAnAnswerThatNoCoordinatorGaveIsAnAPIErrorByItsStatus(t *testing.T) {
	for status, code := range map[int]api.Code{
		http.StatusFound:                 api.CodeInternal,
		http.StatusTeapot:                api.CodeBadRequest,
		http.StatusUnauthorized:          api.CodeUnauthorized,
		http.StatusForbidden:             api.CodeForbidden,
		http.StatusNotFound:              api.CodeNotFound,
		http.StatusConflict:              api.CodeConflict,
		http.StatusRequestEntityTooLarge: api.CodeTooLarge,
		http.StatusTooManyRequests:       api.CodeTooMany,
		http.StatusInternalServerError:   api.CodeInternal,
		http.StatusBadGateway:            api.CodeUnavailable,
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := serve(t, elsewhere, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Location", "/login")
					w.WriteHeader(status)
					_, _ = io.WriteString(w, "<html>")
				})
				_, err := c.Whoami(t.Context())
				var e *api.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, code, e.Code)
				require.Equal(t, status, e.Status)
				require.Contains(t, e.Message, http.StatusText(status))
			})
		})
	}
}

func TestAServerThatIsNotThereIsUnreachableAfterFourTries(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dials := 0
		c := New(FixedURL(elsewhere), StaticToken("x"), Options{
			DialContext: func(context.Context, string, string) (net.Conn, error) { dials++; return nil, errRefused },
			Random:      func() float64 { return 0 },
		})
		started := time.Now()
		_, err := c.Whoami(t.Context())
		var u *UnreachableError
		require.ErrorAs(t, err, &u)
		require.ErrorIs(t, err, errRefused)
		require.Equal(t, elsewhere, u.URL)
		require.Equal(t, 4, dials)
		require.Equal(t, 700*time.Millisecond, time.Since(started))
	})
}

func TestWhatMustNotHappenTwiceIsSentOnce(t *testing.T) {
	calls := 0
	c := serve(t, elsewhere, func(w http.ResponseWriter, _ *http.Request) {
		calls++
		reply(w, http.StatusServiceUnavailable, api.Error{Code: api.CodeUnavailable, Message: "no store"})
	})
	_, err := c.CreateWorkspace(t.Context(), api.CreateWorkspace{Name: "demo"})
	require.Error(t, err)
	require.Equal(t, 1, calls)
}

func TestARepeatedBuildRequestIsTheSameRequest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var ids []string
		c := serve(t, elsewhere, func(w http.ResponseWriter, r *http.Request) {
			var in api.CreateBuild
			require.NoError(t, json.NewDecoder(r.Body).Decode(&in))
			ids = append(ids, in.RequestID)
			if len(ids) < 3 {
				panic(http.ErrAbortHandler) // the connection breaks
			}
			reply(w, http.StatusCreated, api.Build{Number: 4, Transition: in.Transition, Status: events.JobPending})
		})
		b, conflict, err := c.StartWorkspace(t.Context(), "demo")
		require.NoError(t, err)
		require.False(t, conflict)
		require.EqualValues(t, 4, b.Number)
		require.Len(t, ids, 3)
		require.NotEmpty(t, ids[0])
		require.Equal(t, []string{ids[0], ids[0], ids[0]}, ids)
	})
}

func TestAStartJoinsTheBuildThatIsUnderWay(t *testing.T) {
	c := serve(t, elsewhere, func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusConflict, api.Error{
			Code: api.CodeBuildActive, Message: "busy",
			Build: &api.Build{Number: 3, Transition: events.TransitionStop, Status: events.JobRunning},
		})
	})
	b, conflict, err := c.StartWorkspace(t.Context(), "demo")
	require.NoError(t, err)
	require.True(t, conflict)
	require.EqualValues(t, 3, b.Number)
}

func TestTheCallersContextEndsARequestWithItsOwnError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := serve(t, elsewhere, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Whoami(ctx)
		require.Equal(t, context.DeadlineExceeded, err)
	})
}

func TestTheTokenSourcesErrorIsReturnedAsItIs(t *testing.T) {
	mine := errors.New("no token file")
	c := New(FixedURL(elsewhere), func(context.Context) (string, error) { return "", mine }, Options{})
	_, err := c.Whoami(t.Context())
	require.Equal(t, mine, err)
	require.Equal(t, mine, c.Watch(t.Context(), "demo", WatchOptions{Emit: func(events.Event) {}}))
}

func TestABaseURLThatIsNoneIsSaidToBe(t *testing.T) {
	c := New(FixedURL("http://a b"), StaticToken("x"), Options{})
	_, err := c.Whoami(t.Context())
	require.ErrorContains(t, err, "bad server URL")
}

func TestFollowedLogsComeOnceAndInOrderAcrossBrokenConnections(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var queries []string
		c := serve(t, elsewhere, func(w http.ResponseWriter, r *http.Request) {
			queries = append(queries, r.URL.Query().Get("after"))
			send := func(ids ...int64) {
				for _, id := range ids {
					_ = json.NewEncoder(w).Encode(events.Log{ID: id, Output: "line"})
				}
				_ = http.NewResponseController(w).Flush()
			}
			switch len(queries) {
			case 1:
				send(2, 3)
				panic(http.ErrAbortHandler)
			case 2:
				send(3, 4)           // 3 is not wanted again
				<-r.Context().Done() // silence
			case 3:
				for range 10 {
					_, _ = io.WriteString(w, "\n")
					_ = http.NewResponseController(w).Flush()
					time.Sleep(15 * time.Second)
				}
				send(7)
			}
		})
		var got []int64
		err := c.FollowBuildLogs(t.Context(), "demo", 1, 1, func(l events.Log) error {
			got = append(got, l.ID)
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, []int64{2, 3, 4, 7}, got)
		require.Equal(t, []string{"1", "3", "4"}, queries)
	})
}

func TestFollowingEndsWithTheFirstErrorThatTryingAgainCannotMend(t *testing.T) {
	mine := errors.New("enough")
	c := serve(t, elsewhere, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "gone") {
			reply(w, http.StatusNotFound, api.Error{Code: api.CodeNotFound, Message: "gone"})
			return
		}
		_ = json.NewEncoder(w).Encode(events.Log{ID: 1})
	})
	err := c.FollowAgentLogs(t.Context(), "demo", "main", 0, func(events.Log) error { return mine })
	require.Equal(t, mine, err)
	var e *api.Error
	err = c.FollowAgentLogs(t.Context(), "gone", "main", 0, func(events.Log) error { return nil })
	require.ErrorAs(t, err, &e)
	require.Equal(t, api.CodeNotFound, e.Code)
}
