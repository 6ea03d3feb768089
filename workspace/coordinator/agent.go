package coordinator

import (
	"context"
	"errors"
	"net/http"
	"regexp"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/channel"
	"github.com/tunneler/tunneler/workspace/store"
	"github.com/tunneler/tunneler/workspace/token"
)

// capabilities are the optional parts of the channel's protocol that the
// coordinator speaks.
var capabilities = []string{"tunnel"}

// agentIDForm: an agent's id becomes part of the name of its log.
var agentIDForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// maxVersion bounds the version that an agent says it has, in bytes.
const maxVersion = 64

// serveChannel serves one agent's coordination channel (docs/protocol.md,
// section 2).
func (c *Coordinator) serveChannel(w http.ResponseWriter, r *http.Request, who token.Claims) error {
	ctx, leave, err := c.stream(r, &c.channels, "agent")
	if err != nil {
		return err
	}
	defer leave()
	a := &agentChannel{c: c, who: who}
	conn, err := channel.Accept(w, r, channel.ServerOptions{
		Hello: func(limit context.Context, h *events.SessionHello) (*events.SessionWelcome, *events.SessionReject) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(limit, cancel)()
			return a.hello(ctx, h)
		},
		Organization: c.cfg.Organization, Logger: c.log,
	})
	if a.session == nil {
		return nil // it was answered
	}
	if err == nil {
		a.session.conn = conn
	}
	close(a.session.ready)
	if err == nil {
		a.serve(ctx)
	}
	a.depart()
	return nil
}

// agentChannel is the life of one session.
type agentChannel struct {
	c       *Coordinator
	who     token.Claims
	session *session // nil before the hello was looked at
	log     *store.Log
	stored  bool // the record says that the agent is connected here
}

// hello decides whether the agent may speak, and stores that it has come.
func (a *agentChannel) hello(ctx context.Context, h *events.SessionHello) (*events.SessionWelcome, *events.SessionReject) {
	if !agentIDForm.MatchString(h.AgentID) {
		return nil, &events.SessionReject{Code: events.RejectBadHello, Message: "the agent's id is not 1 to 64 letters, digits, - and _"}
	}
	s := newSession(sessionRef{
		Workspace: a.who.Workspace, Build: a.who.Build, Agent: a.who.Agent, Node: a.c.cfg.Node, ID: uuid.NewString(),
	}, h.AgentID)
	if err := a.c.sessions.enter(ctx, s); err != nil {
		return nil, rejectShuttingDown
	}
	a.session = s
	if !s.take(ctx) {
		return nil, rejectUnavailable // a newer connection was faster
	}
	defer s.yield()
	stored, reject := a.admit(ctx, h)
	if reject != nil {
		return nil, reject
	}
	return &events.SessionWelcome{SessionID: s.ref.ID, Capabilities: capabilities, LogsStored: stored}, nil
}

// admit stores the hello. It returns the number of the last line that the
// agent's log has.
func (a *agentChannel) admit(ctx context.Context, h *events.SessionHello) (uint64, *events.SessionReject) {
	refused := func(err error) *events.SessionReject {
		switch {
		case a.c.closing.Err() != nil:
			return rejectShuttingDown
		case unavailable(err), ctx.Err() != nil:
			return rejectUnavailable
		}
		if e, known := apiError(err); known {
			return &events.SessionReject{Code: events.RejectBuildOver, Message: e.Message}
		}
		a.c.log.Error("an agent's hello has failed", zap.String("workspace_id", a.who.Workspace), zap.Error(err))
		return &events.SessionReject{Code: events.RejectUnavailable, Message: "the server has failed to do this", Retryable: true}
	}
	var err error
	if a.log, err = a.c.cfg.Store.Log(agentLogName(a.who.Workspace, h.AgentID)); err != nil {
		return 0, refused(err)
	}
	// Before the hello is stored: once it is, the log may be read by others as
	// that of the newest process.
	last, _, err := a.log.Last(ctx)
	if err != nil {
		return 0, refused(storeError(err))
	}
	var reject *events.SessionReject
	_, err = a.c.workspaces.change(ctx, a.who.Workspace, func(r *record) error {
		if reject = r.hello(a.session.ref, h.AgentID, cut(h.Version, maxVersion), now()); reject != nil {
			return errUnchanged
		}
		return nil
	})
	if reject != nil {
		return 0, reject
	}
	// Even a write that has failed may have been done.
	a.stored = true
	if err != nil {
		return 0, refused(err)
	}
	return last.Origin, nil
}

// serve handles what the agent says until the session ends.
func (a *agentChannel) serve(ctx context.Context) {
	a.c.metrics.agents.Inc()
	defer a.c.metrics.agents.Dec()
	conn := a.session.conn
	over := make(chan struct{})
	closer := make(chan struct{})
	go func() {
		defer close(closer)
		select {
		case <-over:
			return
		case <-ctx.Done():
			a.session.end(rejectShuttingDown)
		case <-a.session.ending:
		}
		if why := a.session.reason(); why != nil {
			conn.Reject(why)
		}
		conn.Close(websocket.CloseGoingAway, "")
	}()
	// The end of ctx ends it, too, but with a reason that the agent can read.
	err := conn.Run(context.WithoutCancel(ctx), a.handle)
	close(over)
	<-closer
	a.c.log.Debug("an agent's channel has ended", zap.String("workspace_id", a.who.Workspace), zap.Error(err))
}

// handle takes one message, in the order in which the agent sent them: a state
// of life is stored after the lines that came before it. While the store is out
// of reach it waits, and so does the agent; ctx ends with the connection, and
// what is not stored by then the agent says again on the next.
func (a *agentChannel) handle(ctx context.Context, m events.ChannelMessage) {
	a.c.metrics.channelMessages.WithLabelValues(channelKind(m)).Inc()
	if !a.session.take(ctx) {
		return
	}
	defer a.session.yield()
	switch m := m.(type) {
	case *events.AgentLogs:
		a.logs(ctx, m)
	case *events.AgentLifecycle:
		_, err := a.c.insist(ctx, a.who.Workspace, func(r *record) error {
			if !r.report(a.session.ref, *m, now()) {
				return errUnchanged
			}
			return nil
		})
		if err != nil && !errors.Is(err, errUnchanged) {
			a.fail(ctx, err)
		}
	}
	// What is left are gauges, and what this version does not know.
}

// logs stores a batch of lines and then acknowledges it. Lines that the log has
// are left out by their number.
func (a *agentChannel) logs(ctx context.Context, m *events.AgentLogs) {
	records := make([]store.LogRecord, 0, len(m.Entries))
	for _, e := range m.Entries {
		if e.Seq == 0 {
			a.c.metrics.droppedLogs.WithLabelValues("agent").Inc()
			continue // it could neither be acknowledged nor told from others
		}
		records = append(records, store.LogRecord{
			Origin: e.Seq, CreatedAt: e.CreatedAt, Level: e.Level.String(), Source: e.Source, Stage: e.Stage, Output: e.Output,
		})
	}
	if len(records) == 0 {
		return
	}
	for {
		_, err := a.log.Append(ctx, records...)
		if err == nil {
			break
		}
		if err = storeError(err); !unavailable(err) {
			a.fail(ctx, err)
			return
		}
		if sleep(ctx, storeRetry) != nil {
			return
		}
	}
	// An agent that cannot be told will send the batch again.
	_ = a.session.conn.Send(ctx, &events.AgentLogsAck{Seq: records[len(records)-1].Origin})
}

// fail ends a session that cannot go on, and lets the agent begin anew.
func (a *agentChannel) fail(ctx context.Context, err error) {
	if ctx.Err() == nil {
		a.c.log.Warn("an agent's channel has failed", zap.String("workspace_id", a.who.Workspace), zap.Error(err))
	}
	a.session.end(rejectUnavailable)
}

// depart stores that the agent has gone, and then makes room for its next
// session. When the coordinator closes it says nothing: whoever takes the agent
// next, or the next start of this coordinator, says what has become of it.
func (a *agentChannel) depart() {
	defer a.c.sessions.leave(a.session)
	if !a.stored || a.c.closing.Err() != nil {
		return
	}
	_, err := a.c.insist(a.c.closing, a.who.Workspace, func(r *record) error {
		if !r.drop(a.session.ref, now()) {
			return errUnchanged
		}
		return nil
	})
	if err != nil && !errors.Is(err, errUnchanged) && a.c.closing.Err() == nil {
		a.c.log.Warn("it cannot be stored that an agent has gone", zap.String("workspace_id", a.who.Workspace), zap.Error(err))
	}
}

// channelKind is the type of a message, of which there are few.
func channelKind(m events.ChannelMessage) string {
	if _, unknown := m.(*events.UnknownMessage); unknown {
		return "unknown"
	}
	return m.Type()
}
