package coordinator

import (
	"context"
	"slices"

	"github.com/tunneler/tunneler/events"
)

// script decides what one watch is sent, and in which order (docs/protocol.md,
// section 1). It is shown the record each time that it, or a log, may have
// changed, and compares it with what it has sent: states in between collapse,
// nothing is sent twice without a change, and what has to come before an update
// is sent before it.
type script struct {
	agent string // the name asked for; empty for the only one

	sentBuild *events.BuildUpdate
	sentAgent *events.AgentUpdate
	begun     bool
	builds    logCursor
	agents    logCursor

	logs logReader
	send func(events.WatchMessage) error
}

func newScript(agent string, afterBuild, afterAgent int64, logs logReader, send func(events.WatchMessage) error) *script {
	if agent == "" {
		agent = agentName
	}
	return &script{
		agent: agent, logs: logs, send: send,
		builds: logCursor{after: afterBuild}, agents: logCursor{after: afterAgent},
	}
}

// follows names the logs that matter now: it wants to be shown the record again
// when they grow.
func (s *script) follows(r *record) (names []string) {
	if r.building() {
		names = append(names, buildLogName(r.ID, r.Build.Number))
	}
	if p := r.agentProcesses(); len(p) > 0 && (r.stopping() || beginning(s.shown(r))) && r.admits() != 0 {
		names = append(names, p[len(p)-1])
	}
	return names
}

// shown is the agent that is reported: nobody, as long as the newest build is
// not a start that has succeeded, or before an agent has come.
func (s *script) shown(r *record) *agentRecord {
	if !r.started() {
		return nil
	}
	if a := r.agent(s.agent); a != nil && a.ID != "" {
		return a
	}
	return nil
}

// beginning reports whether the agent is still at what its startup logs tell of.
func beginning(a *agentRecord) bool {
	return a != nil && (a.Lifecycle == events.LifecycleCreated || a.Lifecycle == events.LifecycleStarting)
}

// show sends what is new in r. Its error is that of send or of the store, or an
// *events.WatchError when the workspace is deleted.
func (s *script) show(ctx context.Context, r *record) error {
	if !s.begun {
		if err := s.begin(ctx, r); err != nil {
			return err
		}
		s.begun = true
	}
	if err := s.showBuild(ctx, r); err != nil {
		return err
	}
	if a := s.shown(r); a != nil {
		if err := s.showAgent(ctx, r, a); err != nil {
			return err
		}
	}
	if r.deleted() {
		return &events.WatchError{Code: events.WatchNotFound, Message: "workspace " + r.Name + " has been deleted"}
	}
	return nil
}

// begin decides where a watch that has no cursor begins to read: at the newest
// build's log, and at that of the agent that lives, if one does.
func (s *script) begin(ctx context.Context, r *record) (err error) {
	if s.builds.after == 0 {
		s.builds.at = max(int(r.Build.Number), 1)
	}
	processes := r.agentProcesses()
	if s.agents.after > 0 {
		return nil
	}
	if len(processes) == 0 {
		s.agents.at = 1
		return nil
	}
	s.agents.name = processes[len(processes)-1]
	if r.admits() == 0 || r.Processes[len(processes)-1].Build != r.admits() {
		s.agents.after, err = s.logs.lastID(ctx, s.agents.name)
	}
	return err
}

func (s *script) showBuild(ctx context.Context, r *record) error {
	u := r.Build.Update()
	changed := s.sentBuild == nil || *s.sentBuild != u
	if r.building() {
		if changed {
			if err := s.sendBuild(u); err != nil {
				return err
			}
		}
		if err := s.drainBuilds(ctx, r); err != nil || !r.stopping() {
			return err
		}
		return s.drainAgents(ctx, r)
	}
	if !changed {
		return nil
	}
	// A build's end comes after all that it had to say, and after all that the
	// agent that it has ended had to say.
	if err := s.drainBuilds(ctx, r); err != nil {
		return err
	}
	if !r.started() {
		if err := s.drainAgents(ctx, r); err != nil {
			return err
		}
	}
	return s.sendBuild(u)
}

func (s *script) showAgent(ctx context.Context, r *record, a *agentRecord) error {
	u := a.Update()
	changed := s.sentAgent == nil || *s.sentAgent != u
	if beginning(a) {
		if changed {
			if err := s.sendAgent(u); err != nil {
				return err
			}
		}
		return s.drainAgents(ctx, r)
	}
	if !changed {
		return nil
	}
	// What the agent says of itself comes after all that it has said before.
	if err := s.drainAgents(ctx, r); err != nil {
		return err
	}
	return s.sendAgent(u)
}

func (s *script) sendBuild(u events.BuildUpdate) error {
	s.sentBuild = &u
	return s.send(events.WatchMessage{BuildUpdate: &u})
}

func (s *script) sendAgent(u events.AgentUpdate) error {
	s.sentAgent = &u
	return s.send(events.WatchMessage{AgentUpdate: &u})
}

func (s *script) drainBuilds(ctx context.Context, r *record) error {
	if r.Build.Number == 0 {
		return nil
	}
	name := func(n int) string { return buildLogName(r.ID, int64(n)) }
	return s.builds.drain(ctx, s.logs, int(r.Build.Number), name, func(l events.Log) error {
		return s.send(events.WatchMessage{BuildLog: &l})
	})
}

func (s *script) drainAgents(ctx context.Context, r *record) error {
	processes := r.agentProcesses()
	if len(processes) == 0 {
		return nil
	}
	name := func(n int) string { return processes[n-1] }
	if s.agents.name != "" {
		// The list may have lost its oldest.
		s.agents.at = slices.Index(processes, s.agents.name) + 1
	}
	return s.agents.drain(ctx, s.logs, len(processes), name, func(l events.Log) error {
		return s.send(events.WatchMessage{AgentLog: &l})
	})
}
