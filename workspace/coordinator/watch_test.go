package coordinator

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/client"
	"github.com/tunneler/tunneler/workspace/token"
)

// rawWatch opens a watch frame by frame.
func (r *running) rawWatch(ref, query, raw string) *websocket.Conn {
	r.t.Helper()
	ws, resp, err := websocket.DefaultDialer.DialContext(r.t.Context(),
		strings.Replace(r.http.URL, "http", "ws", 1)+apiPrefix+"/workspaces/"+ref+"/agent-connection-watch"+query,
		http.Header{"Authorization": {"Bearer " + raw}})
	require.NoError(r.t, err)
	resp.Body.Close()
	r.t.Cleanup(func() { ws.Close() })
	require.NoError(r.t, ws.SetReadDeadline(time.Now().Add(soon)))
	return ws
}

func read(t *testing.T, ws *websocket.Conn) events.WatchMessage {
	t.Helper()
	_, b, err := ws.ReadMessage()
	require.NoError(t, err)
	m, err := events.DecodeWatchMessage(b)
	require.NoError(t, err)
	return m
}

func TestAWatchTellsOfAStartInOrder(t *testing.T) {
	r := newSite(t).start()
	w := r.make("demo", processTemplate)
	var got []events.Event
	ready := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	first := make(chan struct{}, 1)
	go func() {
		done <- r.watch(ctx, "demo", func(e events.Event) {
			got = append(got, e)
			switch e := e.(type) {
			case events.BuildUpdate:
				notify(first)
			case events.AgentUpdate:
				if e.Lifecycle == events.LifecycleReady {
					close(ready)
				}
			}
		})
	}()
	<-first
	_, _, err := r.StartWorkspace(t.Context(), "demo")
	require.NoError(t, err)
	<-ready
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)

	require.Equal(t, events.WatchUpdate{State: events.WatchUp}, got[0])
	require.Equal(t, events.BuildUpdate{Transition: events.TransitionStop, Status: events.JobSucceeded}, got[1], "a snapshot, on connect")
	var story []string
	for _, e := range got[2:] {
		switch e := e.(type) {
		case events.BuildUpdate:
			story = append(story, e.Status.String())
		case events.BuildLog:
			story = append(story, e.Output)
		case events.AgentUpdate:
			story = append(story, "agent "+e.Lifecycle.String())
		case events.AgentLog:
			story = append(story, e.Output)
		}
	}
	// States in between may collapse, and lines come as soon as they are there;
	// what is fixed is what comes last and what comes before it.
	id := "agent-" + w.ID + "-1-1"
	milestones := []string{
		"build 1, line 0", "build 1, line 1", "build 1, line 2", "succeeded",
		id + ", line 0", id + ", line 1", id + ", line 2", "agent ready",
	}
	passing := []string{"pending", "running", "agent created", "agent starting"}
	require.Equal(t, milestones, slices.DeleteFunc(slices.Clone(story), func(s string) bool { return slices.Contains(passing, s) }), "%v", story)
	require.Equal(t, "agent ready", story[len(story)-1])
	for i, line := range story {
		if strings.HasPrefix(line, "agent ") {
			require.Greater(t, i, slices.Index(story, "succeeded"), "%v", story)
		}
		require.Equal(t, i, slices.Index(story, line), "nothing comes twice: %v", story)
	}
}

func TestASnapshotIsABuildAndThenItsAgent(t *testing.T) {
	r := newSite(t).start()
	w := r.make("demo", processTemplate)
	require.Equal(t, events.JobSucceeded, r.build("demo", events.TransitionStart).Status)
	r.awaitRecord(w.ID, func(rec *record) bool { return rec.Agents[0].Lifecycle == events.LifecycleReady })

	ws := r.rawWatch("demo", "?agent_name=main", r.site.token(api.ScopeViewer))
	var last int64
	for range 3 {
		m := read(t, ws)
		require.NotNil(t, m.BuildLog)
		last = m.BuildLog.ID
	}
	require.EqualValues(t, 1, read(t, ws).BuildUpdate.Number)
	for range 3 {
		require.NotNil(t, read(t, ws).AgentLog)
	}
	require.Equal(t, events.LifecycleReady, read(t, ws).AgentUpdate.Lifecycle)

	ws = r.rawWatch(w.ID, "?after_build_log="+itoa(last)+"&after_agent_log="+itoa(maxNumber), r.site.token(api.ScopeViewer))
	require.NotNil(t, read(t, ws).BuildUpdate, "no line is sent again")
	require.NotNil(t, read(t, ws).AgentUpdate)
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func TestAWatchOfAnAgentThatIsNotThereSaysSo(t *testing.T) {
	r := newSite(t).start()
	r.make("demo", noneTemplate)
	err := r.Watch(t.Context(), "demo", client.WatchOptions{Agent: "side", Emit: func(events.Event) {}})
	var e *events.WatchError
	require.ErrorAs(t, err, &e)
	require.Equal(t, events.WatchNameNotFound, e.Code)
	require.False(t, e.Retryable)
	err = r.Watch(t.Context(), "dem", client.WatchOptions{Emit: func(events.Event) {}})
	require.Equal(t, []string{"demo"}, apiErr(t, err).Nearest)
}

func TestAWatchEndsWithItsWorkspace(t *testing.T) {
	r := newSite(t).start()
	w := r.make("demo", processTemplate)
	require.Equal(t, events.JobSucceeded, r.build("demo", events.TransitionStart).Status)
	var last events.BuildUpdate
	up := make(chan struct{}, 1)
	done := make(chan error, 1)
	follow := func() {
		done <- r.watch(context.WithoutCancel(t.Context()), w.ID, func(e events.Event) {
			if b, ok := e.(events.BuildUpdate); ok {
				last = b
				notify(up)
			}
		})
	}
	gone := func() {
		var e *events.WatchError
		require.ErrorAs(t, <-done, &e)
		require.Equal(t, events.WatchNotFound, e.Code)
		require.False(t, e.Retryable)
		require.Equal(t, events.BuildUpdate{Number: 2, Transition: events.TransitionDelete, Status: events.JobSucceeded}, last)
	}
	go follow()
	<-up
	_, err := r.CreateBuild(t.Context(), "demo", api.CreateBuild{Transition: events.TransitionDelete})
	require.NoError(t, err)
	gone()
	last = events.BuildUpdate{}
	go follow() // whoever comes too late is told as much
	gone()
}

func TestAWatchRidesOutARestartOfTheCoordinator(t *testing.T) {
	s := newSite(t)
	r := s.start()
	w := r.make("demo", processTemplate)
	require.Equal(t, events.JobSucceeded, r.build("demo", events.TransitionStart).Status)
	c := client.New(s.address, client.StaticToken(s.token(api.ScopeViewer)), client.Options{})
	defer c.Close()
	var states []events.WatchState
	var reason error
	var logs []int64
	builds := make(chan events.BuildUpdate, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- c.Watch(ctx, w.ID, client.WatchOptions{Emit: func(e events.Event) {
			switch e := e.(type) {
			case events.WatchUpdate:
				states = append(states, e.State)
				if reason == nil {
					reason = e.Err
				}
			case events.BuildUpdate:
				builds <- e
			case events.BuildLog:
				logs = append(logs, e.ID)
			}
		}})
	}()
	<-builds
	r.stop()
	r = s.start()
	<-builds // the snapshot again
	b := r.build("demo", events.TransitionStop)
	for u := range builds {
		if u.Number == b.Number && u.Status.Final() {
			break
		}
	}
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.Equal(t, []events.WatchState{events.WatchUp, events.WatchRetrying, events.WatchUp}, states)
	var e *events.WatchError
	require.ErrorAs(t, reason, &e)
	require.Equal(t, events.WatchServerShutdown, e.Code)
	require.Len(t, logs, 4, "three lines of the start, one of the stop, each once")
}

func TestAClosingCoordinatorTakesNoWatch(t *testing.T) {
	r := newSite(t).start()
	r.make("demo", noneTemplate)
	raw := r.site.token(api.ScopeOwner)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	require.NoError(t, r.c.Close(ctx))
	for _, path := range []string{"/workspaces/demo/agent-connection-watch", "/workspaces/demo/agents/main/logs?follow=true"} {
		resp := r.do(r.request(http.MethodGet, apiPrefix+path, raw, ""))
		require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode, path)
	}
}

func TestAWatchEndsWhenItsTokenDoes(t *testing.T) {
	r := newSite(t).start()
	r.make("demo", noneTemplate)
	almost := &token.Authority{Key: r.site.authority.Key, Now: func() time.Time { return time.Now().Add(-token.Leeway) }}
	tok, err := almost.Issue(token.Claims{Subject: "ann", Scope: api.ScopeViewer}, 2*time.Second)
	require.NoError(t, err)
	ws := r.rawWatch("demo", "", tok.Token)
	require.NotNil(t, read(t, ws).BuildUpdate)
	e := read(t, ws).Error
	require.Equal(t, events.WatchUnauthorized, e.Code)
	require.False(t, e.Retryable)
}

func TestASilentWatcherIsLeft(t *testing.T) {
	r := newSite(t).start()
	r.make("demo", noneTemplate)
	r.c.times.ping = 30 * time.Millisecond
	ws := r.rawWatch("demo", "", r.site.token(api.ScopeViewer))
	pings := 0
	ws.SetPingHandler(func(data string) error {
		if pings++; pings <= 3 {
			return ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
		}
		return nil
	})
	require.NotNil(t, read(t, ws).BuildUpdate)
	_, _, err := ws.ReadMessage()
	require.True(t, websocket.IsCloseError(err, websocket.CloseGoingAway), "%v", err)
	require.Equal(t, 4, pings)
}

func TestAWatcherThatTalksTooMuchIsLeft(t *testing.T) {
	r := newSite(t).start()
	r.make("demo", noneTemplate)
	ws := r.rawWatch("demo", "", r.site.token(api.ScopeViewer))
	_ = ws.WriteMessage(websocket.TextMessage, make([]byte, 64<<10)) // it may be cut off in the middle
	for {
		if _, _, err := ws.ReadMessage(); err != nil {
			break
		}
	}
	r.until("its place is free", func() bool { return r.c.watches.taken.Load() == 0 })
}

func TestALineThatIsTooLongForAMessageIsCut(t *testing.T) {
	r := newSite(t).start()
	_, agent := byHand(t, r)
	a, _ := r.come(agent, "agent-1")
	entries := lines(1, 2)
	entries[0].Output = strings.Repeat("\x00", 64<<10)
	a.say(&events.AgentLogs{Entries: entries})
	a.acked(t, 2)
	ws := r.rawWatch("demo", "", r.site.token(api.ScopeViewer))
	for {
		if m := read(t, ws); m.AgentLog != nil {
			require.Len(t, m.AgentLog.Output, shortOutput)
			break
		}
	}
}

func TestAnAgentsLogIsFollowedUntilItsBuildIsOver(t *testing.T) {
	r := newSite(t).start()
	_, agent := byHand(t, r)
	a, _ := r.come(agent, "agent-1")
	got := make(chan string, 10)
	done := make(chan error, 1)
	go func() {
		done <- r.FollowAgentLogs(context.WithoutCancel(t.Context()), "demo", "main", 0, func(l events.Log) error {
			got <- l.Output
			return nil
		})
	}()
	a.say(&events.AgentLogs{Entries: lines(1, 1)})
	require.Equal(t, "line 1", <-got)
	b, _ := r.come(agent, "agent-2")
	b.say(&events.AgentLogs{Entries: lines(7, 7)})
	require.Equal(t, "line 7", <-got, "a new process, the same log")
	require.Equal(t, events.JobSucceeded, r.build("demo", events.TransitionStop).Status)
	require.NoError(t, <-done)
}
