package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/channel"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/token"
)

const (
	// connectTimeout is how long an agent may take to answer a request for a
	// connection.
	connectTimeout = 10 * time.Second
	// sessionLife is how long an agent waits for the tunneler that was announced.
	sessionLife = time.Minute
)

var keyHashForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// connect has an agent expect the caller, and tells where and how to find it.
func (c *Coordinator) connect(w http.ResponseWriter, r *http.Request, who token.Claims) error {
	var in api.Connect
	if err := decode(r, &in); err != nil {
		return err
	}
	if err := checkConnect(in); err != nil {
		return err
	}
	rec, _, err := c.workspaces.resolve(r.Context(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	if in.Agent != "" && in.Agent != agentName {
		return notFound("agent", in.Agent, []string{agentName})
	}
	agent, s, err := c.reachable(rec)
	if err != nil {
		return err
	}

	request := &events.ConnectionRequest{
		RequestID: uuid.NewString(), Kind: events.ConnectionTunnel, SessionID: uuid.NewString(),
		PeerKeyHash: in.KeyHash, PeerCandidates: in.Candidates, Expires: now().Add(sessionLife),
	}
	ctx, cancel := context.WithTimeout(r.Context(), c.times.connect)
	defer cancel()
	result, err := s.request(ctx, request)
	var refused *channel.RefusedError
	switch {
	case errors.As(err, &refused):
		return &api.Error{
			Code: api.CodeConflict, Message: fmt.Sprintf("the agent of workspace %s refused: %s", rec.Name, cut(refused.Reason, maxErrorText)),
		}
	case errors.Is(err, channel.ErrBusy):
		return &api.Error{
			Code: api.CodeTooMany, Message: fmt.Sprintf("the agent of workspace %s has too many requests to answer", rec.Name), Hint: "try again in a moment",
		}
	case errors.Is(err, channel.ErrClosed):
		return notConnected(rec, agent)
	case errors.Is(err, context.DeadlineExceeded):
		return &api.Error{
			Code:    api.CodeAgentTimeout,
			Message: fmt.Sprintf("the agent of workspace %s did not answer within %v", rec.Name, c.times.connect),
			Hint:    "try again; if it goes on, restart the workspace",
		}
	case err != nil:
		return err
	}
	c.log.Debug("tunnel session made", zap.String("subject", who.Subject), zap.String("workspace", rec.Name), zap.String("session", request.SessionID))
	return respond(w, http.StatusOK, api.Session{
		ID: request.SessionID, AgentID: agent.ID, KeyHash: result.KeyHash,
		Candidates: append([]string{}, result.Candidates...), Expires: request.Expires,
	})
}

func checkConnect(in api.Connect) error {
	if !keyHashForm.MatchString(in.KeyHash) {
		return badRequest("key_hash is not a SHA-256 in 64 lower-case hexadecimal digits")
	}
	if len(in.Candidates) > events.MaxCandidates {
		return badRequest("%d candidates are given, at most %d are allowed", len(in.Candidates), events.MaxCandidates)
	}
	for _, addr := range in.Candidates {
		if _, err := netip.ParseAddrPort(addr); err != nil {
			return badRequest("candidate %q is not an address and port", cut(addr, 64))
		}
	}
	return nil
}

// reachable gives the agent of a started workspace and its channel, if that
// ends here.
func (c *Coordinator) reachable(rec record) (agentRecord, *session, error) {
	if !rec.started() {
		return agentRecord{}, nil, notStarted(rec)
	}
	a := rec.agent(agentName)
	if a == nil || a.Status != events.AgentConnected {
		return agentRecord{}, nil, notConnected(rec, agentRecord{})
	}
	s := c.sessions.get(a.Session)
	if s == nil {
		return agentRecord{}, nil, notConnected(rec, *a)
	}
	return *a, s, nil
}

func notConnected(rec record, a agentRecord) *api.Error {
	e := &api.Error{
		Code: api.CodeConflict, Message: fmt.Sprintf("the agent of workspace %s is not connected", rec.Name), Hint: "wait until it is",
	}
	if a.Node != "" {
		e.Hint = "it was last connected to server " + a.Node
	}
	return e
}
