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

// enter makes s the session of its agent once the one before it has ended: of
// two connections of one agent only one may store anything.
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
		select {
		case <-before.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leave takes s out, and says that nothing of it is left.
func (t *sessions) leave(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, s.ref.ID)
	delete(t.byAgent, s.key())
	close(s.done)
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
	// ending is closed when the session is to end, and done when nothing of it
	// is left.
	ending chan struct{}
	done   chan struct{}

	mu    sync.Mutex
	ended bool
	last  *events.SessionReject // what the agent is told; nil for nothing
}

func newSession(ref sessionRef, agentID string) *session {
	return &session{
		ref: ref, agentID: agentID,
		ready: make(chan struct{}), ending: make(chan struct{}), done: make(chan struct{}),
	}
}

func (s *session) key() agentKey { return agentKey{s.ref.Workspace, s.ref.Agent} }

// end ends the session soon; done tells when. The first reason stands.
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
