package coordinator

import (
	"context"
	"sync"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/channel"
)

// sessions are the agents' channels that end here.
type sessions struct {
	mu   sync.Mutex
	byID map[string]*session
	// byAgent has the only session of each agent, by workspace and name.
	byAgent map[agentKey]*session
}

type agentKey struct{ workspace, agent string }

func newSessions() *sessions {
	return &sessions{byID: make(map[string]*session), byAgent: make(map[agentKey]*session)}
}

// enter makes s the session of its agent once the one before it has been
// silenced: of two connections of one agent only one may store anything. It does
// not wait for the other connection to end, which may be half dead.
func (t *sessions) enter(ctx context.Context, s *session) error {
	for {
		t.mu.Lock()
		before := t.byAgent[s.key()]
		if before == nil {
			t.byAgent[s.key()], t.byID[s.ref.ID] = s, s
			t.mu.Unlock()
			return nil
		}
		t.mu.Unlock()
		if before.agentID == s.agentID {
			before.end(nil)
		} else {
			before.end(rejectReplaced)
		}
		if err := before.silence(ctx); err != nil {
			return err
		}
		t.mu.Lock()
		if t.byAgent[s.key()] == before {
			delete(t.byAgent, s.key())
		}
		t.mu.Unlock()
	}
}

// leave takes s out.
func (t *sessions) leave(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, s.ref.ID)
	if t.byAgent[s.key()] == s {
		delete(t.byAgent, s.key())
	}
}

// get finds a session by its id; nil if it is not here.
func (t *sessions) get(id string) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// review ends the sessions of agents that the record does not admit any more.
func (t *sessions) review(r *record) {
	t.mu.Lock()
	s := t.byAgent[agentKey{r.ID, agentName}]
	t.mu.Unlock()
	if s != nil && r.admits() != s.ref.Build {
		s.end(rejectBuildOver)
	}
}

// What an agent is told that is not wanted.
var (
	rejectBuildOver = &events.SessionReject{
		Code: events.RejectBuildOver, Message: "the workspace has been stopped or started anew: this agent's build is over",
	}
	rejectReplaced = &events.SessionReject{
		Code: events.RejectReplaced, Message: "a newer process of this agent has taken its place",
	}
	rejectUnavailable = &events.SessionReject{
		Code: events.RejectUnavailable, Message: "the server cannot reach its store", Retryable: true,
	}
	rejectShuttingDown = &events.SessionReject{
		Code: events.RejectShuttingDown, Message: errShuttingDown.Message, Retryable: true,
	}
)

// session is one agent's channel, from the moment that its hello is looked at.
type session struct {
	ref     sessionRef
	agentID string

	// ready is closed once conn is there, or never will be: then it is nil.
	ready chan struct{}
	conn  *channel.ServerConn
	// ending is closed when the session is to end.
	ending chan struct{}
	// turn, with room for one, is held by who stores something in the agent's
	// name; silent, which it guards, is set when nobody may any more.
	turn   chan struct{}
	silent bool

	mu    sync.Mutex
	ended bool
	last  *events.SessionReject // what the agent is told; nil for nothing
}

func newSession(ref sessionRef, agentID string) *session {
	return &session{
		ref: ref, agentID: agentID,
		ready: make(chan struct{}), ending: make(chan struct{}), turn: make(chan struct{}, 1),
	}
}

func (s *session) key() agentKey { return agentKey{s.ref.Workspace, s.ref.Agent} }

// take waits for the turn to store something in the agent's name. If ok, the
// caller gives it back by yield.
func (s *session) take(ctx context.Context) (ok bool) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	if s.silent {
		s.yield()
		return false
	}
	return true
}

func (s *session) yield() { <-s.turn }

// silence waits for what is being stored, and lets nothing more be.
func (s *session) silence(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		s.silent = true
		s.yield()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end ends the session soon. The first reason stands.
func (s *session) end(why *events.SessionReject) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.ended, s.last = true, why
		close(s.ending)
	}
}

// reason is what the agent is told at the end.
func (s *session) reason() *events.SessionReject {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// request asks the agent for a connection and waits for its answer until ctx
// ends; the error wraps channel.ErrClosed if the agent goes first.
func (s *session) request(ctx context.Context, m *events.ConnectionRequest) (*events.ConnectionResult, error) {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.conn == nil {
		return nil, channel.ErrClosed
	}
	return s.conn.Request(ctx, m)
}
