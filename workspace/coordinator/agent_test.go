package coordinator

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/client"
)

// byHand is a started workspace whose agent is the test's, with its token.
func byHand(t *testing.T, r *running) (api.Workspace, string) {
	w := r.make("demo", noneTemplate)
	require.Equal(t, events.JobSucceeded, r.build("demo", events.TransitionStart).Status)
	tok, err := r.AgentToken(t.Context(), "demo", api.CreateAgentToken{})
	require.NoError(t, err)
	return w, tok.Token
}

// come connects as an agent that has to be welcome.
func (r *running) come(token, id string) (*agentConn, *events.SessionWelcome) {
	r.t.Helper()
	c, welcome, err := dialAgent(r.t.Context(), r.http.URL, token, id)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { c.Close() })
	require.NoError(r.t, c.SetReadDeadline(time.Now().Add(soon)))
	return c, welcome
}

func lines(from, to int) (entries []events.AgentLogEntry) {
	for i := from; i <= to; i++ {
		entries = append(entries, events.AgentLogEntry{
			Seq: uint64(i), CreatedAt: time.Now(), Level: events.LogInfo, Source: "script", Stage: "startup", Output: fmt.Sprint("line ", i),
		})
	}
	return entries
}

// acked reads until an acknowledgement of seq has come.
func (c *agentConn) acked(t *testing.T, seq uint64) {
	t.Helper()
	for {
		m, err := c.hear()
		require.NoError(t, err)
		if ack, ok := m.(*events.AgentLogsAck); ok && ack.Seq >= seq {
			require.Equal(t, seq, ack.Seq)
			return
		}
	}
}

func (r *running) agentLog(ref string) (out []string) {
	r.t.Helper()
	page, err := r.AgentLogs(r.t.Context(), ref, "main", client.LogOptions{})
	require.NoError(r.t, err)
	for _, l := range page.Logs {
		out = append(out, l.Output)
	}
	return out
}

func TestAnAgentsLinesAreAcknowledgedOnceStoredAndNeverDoubled(t *testing.T) {
	r := newSite(t).start()
	_, token := byHand(t, r)
	a, welcome := r.come(token, "agent-1")
	require.Zero(t, welcome.LogsStored)
	a.say(&events.AgentLogs{Entries: lines(1, 3)})
	a.acked(t, 3)
	require.Equal(t, []string{"line 1", "line 2", "line 3"}, r.agentLog("demo"))
	a.say(&events.AgentLogs{Entries: lines(2, 5)}) // an acknowledgement was lost
	a.acked(t, 5)
	a.Close()

	a, welcome = r.come(token, "agent-1")
	require.EqualValues(t, 5, welcome.LogsStored)
	a.say(&events.AgentLogs{Entries: lines(1, 7)})
	a.acked(t, 7)
	require.Equal(t, []string{"line 1", "line 2", "line 3", "line 4", "line 5", "line 6", "line 7"}, r.agentLog("demo"))

	// Another process counts anew.
	a, welcome = r.come(token, "agent-2")
	require.Zero(t, welcome.LogsStored)
	a.say(&events.AgentLogs{Entries: lines(1, 1)})
	a.acked(t, 1)
	require.Len(t, r.agentLog("demo"), 8, "the log of an agent is that of all its processes")
}

func TestAStateOfLifeComesAfterTheLinesBeforeIt(t *testing.T) {
	r := newSite(t).start()
	w, token := byHand(t, r)
	a, _ := r.come(token, "agent-1")
	changes := r.c.workspaces.cache.Subscribe(w.ID)
	defer changes.Close()
	for i := range 20 {
		a.say(&events.AgentLogs{Entries: lines(2*i+1, 2*i+2)})
		a.say(&events.AgentLifecycle{Lifecycle: events.LifecycleStarting, Error: fmt.Sprint(i)})
	}
	for {
		rec, _ := r.c.workspaces.cached(w.ID)
		var seen int
		if n, _ := fmt.Sscan(rec.Agents[0].Error, &seen); n == 1 {
			require.GreaterOrEqual(t, len(r.agentLog("demo")), 2*seen+2)
		}
		if seen == 19 {
			return
		}
		select {
		case <-changes.C:
			changes.Take()
		case <-time.After(soon):
			require.FailNow(t, "the states do not come")
		}
	}
}

func TestAnAgentThatGoesIsDisconnectedAtOnce(t *testing.T) {
	r := newSite(t).start()
	w, token := byHand(t, r)
	a, _ := r.come(token, "agent-1")
	require.Equal(t, events.AgentConnected, r.awaitRecord(w.ID, func(rec *record) bool { return rec.Agents[0].ID != "" }).Agents[0].Status)
	a.Close()
	r.awaitRecord(w.ID, func(rec *record) bool { return rec.Agents[0].Status == events.AgentDisconnected })
}

func TestASecondConnectionOfAnAgentTakesOver(t *testing.T) {
	r := newSite(t).start()
	w, token := byHand(t, r)
	first, _ := r.come(token, "agent-1")
	second, _ := r.come(token, "agent-1")
	_, err := first.hear()
	require.True(t, websocket.IsCloseError(err, websocket.CloseGoingAway), "%v", err)
	second.say(&events.AgentLifecycle{Lifecycle: events.LifecycleReady})
	rec := r.awaitRecord(w.ID, func(rec *record) bool { return rec.Agents[0].Lifecycle == events.LifecycleReady })
	require.Equal(t, events.AgentConnected, rec.Agents[0].Status)
}

func TestANewProcessOfAnAgentReplacesTheOldOneForGood(t *testing.T) {
	r := newSite(t).start()
	w, token := byHand(t, r)
	first, _ := r.come(token, "agent-1")
	_, _ = r.come(token, "agent-2")
	m, err := first.hear()
	require.NoError(t, err)
	require.Equal(t, events.RejectReplaced, m.(*events.SessionReject).Code)
	require.False(t, m.(*events.SessionReject).Retryable)
	_, _, err = dialAgent(t.Context(), r.http.URL, token, "agent-1")
	var reject *events.SessionReject
	require.ErrorAs(t, err, &reject)
	require.Equal(t, events.RejectReplaced, reject.Code)
	require.Equal(t, "agent-2", r.awaitRecord(w.ID, func(*record) bool { return true }).Agents[0].ID)
}

func TestAnAgentOfABuildThatIsOverIsTurnedAway(t *testing.T) {
	r := newSite(t).start()
	_, token := byHand(t, r)
	require.Equal(t, events.JobSucceeded, r.build("demo", events.TransitionStop).Status)
	_, _, err := dialAgent(t.Context(), r.http.URL, token, "agent-1")
	var reject *events.SessionReject
	require.ErrorAs(t, err, &reject)
	require.Equal(t, events.RejectBuildOver, reject.Code)
	require.False(t, reject.Retryable)
	asAgent := client.New(client.FixedURL(r.http.URL), client.StaticToken(token), client.Options{})
	defer asAgent.Close()
	_, err = asAgent.Manifest(t.Context())
	require.Equal(t, api.CodeForbidden, apiErr(t, err).Code)
	_, err = asAgent.RenewToken(t.Context())
	require.Equal(t, api.CodeForbidden, apiErr(t, err).Code)
}

func TestWhatAnAgentMayNotBeCalled(t *testing.T) {
	r := newSite(t).start()
	_, token := byHand(t, r)
	for _, id := range []string{"", "a.b", "a b", "a*", strings.Repeat("a", 65)} {
		_, _, err := dialAgent(t.Context(), r.http.URL, token, id)
		var reject *events.SessionReject
		require.ErrorAs(t, err, &reject, id)
		require.Equal(t, events.RejectBadHello, reject.Code)
	}
}

func TestOddMessagesDoNotEndASession(t *testing.T) {
	r := newSite(t).start()
	_, token := byHand(t, r)
	a, _ := r.come(token, "agent-1")
	a.say(&events.UnknownMessage{Name: "agent.mood"})
	a.say(&events.AgentStats{Tunnels: 1})
	a.say(&events.ConnectionResult{RequestID: "nobody's"})
	a.say(&events.AgentLogs{})
	a.say(&events.AgentLogs{Entries: []events.AgentLogEntry{{Output: "without a number"}}})
	a.say(&events.AgentLogs{Entries: lines(1, 1)})
	a.acked(t, 1)
	require.Equal(t, []string{"line 1"}, r.agentLog("demo"))
}

func TestAnAgentKnowsItsWorkspaceAndRenewsItsToken(t *testing.T) {
	r := newSite(t).start()
	w, token := byHand(t, r)
	asAgent := client.New(client.FixedURL(r.http.URL), client.StaticToken(token), client.Options{})
	defer asAgent.Close()
	m, err := asAgent.Manifest(t.Context())
	require.NoError(t, err)
	require.Equal(t, w.ID, m.WorkspaceID)
	require.Equal(t, "demo", m.WorkspaceName)
	require.EqualValues(t, 1, m.Build)
	require.Equal(t, "byhand", m.Template.Name)
	renewed, err := asAgent.RenewToken(t.Context())
	require.NoError(t, err)
	_, _ = r.come(renewed.Token, "agent-1")
}

func TestATunnelSessionIsWhatTheAgentAgreesTo(t *testing.T) {
	r := newSite(t).start()
	_, token := byHand(t, r)
	in := api.Connect{KeyHash: strings.Repeat("a", 64), Candidates: []string{"192.0.2.1:4000"}}
	_, err := r.Connect(t.Context(), "demo", in)
	require.Equal(t, api.CodeConflict, apiErr(t, err).Code, "nobody is there")

	a, _ := r.come(token, "agent-1")
	ask := func() chan error {
		done := make(chan error, 1)
		go func() {
			s, err := r.Connect(context.WithoutCancel(t.Context()), "demo", in)
			if err == nil && (s.AgentID != "agent-1" || s.KeyHash != "theirs" || s.Candidates[0] != "192.0.2.2:5000" || s.ID == "") {
				err = fmt.Errorf("session %+v", s)
			}
			done <- err
		}()
		return done
	}
	hear := func() *events.ConnectionRequest {
		m, err := a.hear()
		require.NoError(t, err)
		return m.(*events.ConnectionRequest)
	}
	done := ask()
	req := hear()
	require.Equal(t, events.ConnectionTunnel, req.Kind)
	require.Equal(t, in.KeyHash, req.PeerKeyHash)
	require.Equal(t, in.Candidates, req.PeerCandidates)
	require.NotEmpty(t, req.SessionID)
	require.True(t, req.Expires.After(time.Now()))
	a.say(&events.ConnectionResult{RequestID: req.RequestID, KeyHash: "theirs", Candidates: []string{"192.0.2.2:5000"}})
	require.NoError(t, <-done)

	done = ask()
	a.say(&events.ConnectionResult{RequestID: hear().RequestID, Error: "no more room"})
	err = <-done
	require.Equal(t, api.CodeConflict, apiErr(t, err).Code)
	require.Contains(t, err.Error(), "no more room")

	r.c.times.connect = 20 * time.Millisecond
	err = <-ask()
	require.Equal(t, api.CodeAgentTimeout, apiErr(t, err).Code)
	require.Equal(t, 504, apiErr(t, err).Status)
	hear()

	r.c.times.connect = soon
	done = ask()
	hear()
	a.Close()
	require.Equal(t, api.CodeConflict, apiErr(t, <-done).Code)
}

func TestAgentsComeBackToACoordinatorThatWasRestarted(t *testing.T) {
	s := newSite(t)
	r := s.start()
	w := r.make("demo", processTemplate)
	require.Equal(t, events.JobSucceeded, r.build("demo", events.TransitionStart).Status)
	before := r.awaitRecord(w.ID, func(rec *record) bool { return rec.Agents[0].Lifecycle == events.LifecycleReady })
	r.stop()
	r = s.start()
	after := r.awaitRecord(w.ID, func(rec *record) bool {
		return rec.Agents[0].Status == events.AgentConnected && rec.Agents[0].Session != before.Agents[0].Session
	})
	require.Equal(t, before.Agents[0].ID, after.Agents[0].ID, "the same process")
	require.Equal(t, 1, s.world.starts)
	require.Len(t, r.agentLog("demo"), 3, "nothing comes twice")
}

func TestAgentsThatDoNotComeBackAreDisconnected(t *testing.T) {
	s := newSite(t)
	r := s.start()
	w, token := byHand(t, r)
	a, _ := r.come(token, "agent-1")
	r.awaitRecord(w.ID, func(rec *record) bool { return rec.Agents[0].Status == events.AgentConnected })
	r.stop()
	m, err := a.hear()
	require.NoError(t, err)
	require.Equal(t, events.RejectShuttingDown, m.(*events.SessionReject).Code)
	require.True(t, m.(*events.SessionReject).Retryable)
	r = s.start(func(c *Config) { c.AgentReturn = 50 * time.Millisecond })
	r.awaitRecord(w.ID, func(rec *record) bool { return rec.Agents[0].Status == events.AgentDisconnected })
}

func TestAWorkspaceThatEndedWhileNoCoordinatorRanIsStartedAgain(t *testing.T) {
	s := newSite(t)
	r := s.start()
	w := r.make("demo", processTemplate)
	require.Equal(t, events.JobSucceeded, r.build("demo", events.TransitionStart).Status)
	r.stop()
	s.world.mu.Lock()
	s.world.kill(w.ID)
	s.world.mu.Unlock()
	r = s.start()
	r.awaitRecord(w.ID, func(rec *record) bool {
		return rec.Agents[0].Status == events.AgentConnected && len(rec.Processes) == 2
	})
	require.EqualValues(t, 1, s.world.builds(w.ID), "it is the same build")
	require.Contains(t, r.buildLog("demo", 1), "the workspace has ended while no server ran: it is started again")
}
