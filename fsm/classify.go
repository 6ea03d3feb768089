package fsm

import "github.com/tunneler/tunneler/events"

// classify says which trigger an event is for a machine with this memory, or
// that the event is old news: Stale for an update that is older than the
// snapshot, Replayed for one that says what the snapshot says already. Old
// news is counted and fires nothing. For any other event the outcome is Moved.
func classify(m *model, ev events.Event) (Trigger, Outcome) {
	switch ev := ev.(type) {
	case events.Shutdown:
		return TriggerShutdown, Moved
	case events.Abort:
		return TriggerAbort, Moved
	case events.Timeout:
		return TriggerTimeout, Moved
	case events.Deadline:
		return TriggerDeadline, Moved
	case events.RetryDue:
		return TriggerRetryDue, Moved
	case events.BuildUpdate:
		return classifyBuild(ev), freshBuild(m, ev)
	case events.AgentUpdate:
		return classifyAgent(ev), freshAgent(m, ev)
	case events.StartResult:
		if ev.Err == nil && !ev.Conflict {
			return TriggerStartAccepted, Moved
		}
		return TriggerStartRefused, Moved
	case events.TailnetUpdate:
		if ev.Up {
			return TriggerTailnetUp, Moved
		}
		return TriggerTailnetDown, Moved
	case events.AppUpdate:
		if ev.Up {
			return TriggerAppUp, Moved
		}
		return TriggerAppDown, Moved
	case events.WatchUpdate:
		switch ev.State {
		case events.WatchUp:
			return TriggerWatchUp, Moved
		case events.WatchLost:
			return TriggerWatchLost, Moved
		default:
			return TriggerWatchRetrying, Moved
		}
	case events.PathUpdate:
		return TriggerPathChanged, Moved
	default: // events.BuildLog, events.AgentLog
		return TriggerLog, Moved
	}
}

// classifyBuild: canceling is active, and so is a status or a transition that
// this version does not know: it waits, and starts nothing. A delete is final
// from its first word: there is nothing to wait for in a workspace that is
// going away.
func classifyBuild(ev events.BuildUpdate) Trigger {
	switch {
	case ev.Status == events.JobFailed || ev.Status == events.JobCanceled:
		return TriggerBuildFailed
	case ev.Transition == events.TransitionDelete:
		return TriggerDeleted
	case ev.Transition == events.TransitionStart && ev.Status == events.JobSucceeded:
		return TriggerStartSucceeded
	case ev.Transition == events.TransitionStart:
		return TriggerStartActive
	case ev.Transition == events.TransitionStop && ev.Status == events.JobSucceeded:
		return TriggerStopSucceeded
	default:
		return TriggerStopActive
	}
}

// classifyAgent: an agent that the coordinator does not hear is gone or not
// yet there, whatever it last said of itself.
func classifyAgent(ev events.AgentUpdate) Trigger {
	switch ev.Status {
	case events.AgentConnected:
	case events.AgentDisconnected, events.AgentTimeout:
		return TriggerAgentGone
	default:
		return TriggerAgentCreated
	}
	switch ev.Lifecycle {
	case events.LifecycleReady:
		return TriggerAgentReady
	case events.LifecycleStarting:
		return TriggerAgentStarting
	case events.LifecycleStartError, events.LifecycleStartTimeout:
		return TriggerAgentBadStart
	case events.LifecycleCreated, events.LifecycleUnknown:
		return TriggerAgentCreated
	default: // shutting down, or off
		return TriggerAgentGone
	}
}

func freshBuild(m *model, ev events.BuildUpdate) Outcome {
	switch {
	case !m.hasBuild:
		return Moved
	case ev == m.build:
		return Replayed
	case ev.Number < m.build.Number,
		// A final status never changes.
		ev.Number == m.build.Number && m.build.Status.Final():
		return Stale
	}
	return Moved
}

func freshAgent(m *model, ev events.AgentUpdate) Outcome {
	switch {
	case ev == m.agent:
		return Replayed
	case ev.Build < m.build.Number || ev.Build < m.agent.Build:
		return Stale
	}
	return Moved
}

// observe records what an event tells of the world. It runs before the guards.
func (m *model) observe(ev events.Event) {
	switch ev := ev.(type) {
	case events.BuildUpdate:
		if ev.Number != m.build.Number {
			m.lastDialErr = nil // it was about another build's agent
		}
		m.build, m.hasBuild = ev, true
	case events.AgentUpdate:
		m.agent = ev
	case events.StartResult:
		m.starting = false
	case events.WatchUpdate:
		m.watch, m.watchErr = ev.State, ev.Err
	}
}

// settle records what an expected answer changes in what the machine holds. It
// runs after the guards, which see what was held when the event came, and
// before the actions. An unexpected answer is not settled.
func (m *model) settle(ev events.Event, r *rules) {
	switch ev := ev.(type) {
	case events.TailnetUpdate:
		asked := m.dialCanceled // what a dial that we cancelled says is no news
		m.dialing, m.dialCanceled, m.connHeld = false, false, ev.Up
		if ev.Up {
			m.lastDialErr = nil
			return
		}
		if !asked {
			m.lastDialErr = ev.Err
		}
		if ev.Lived > 0 && ev.Lived >= r.stableAfter {
			m.attempt = 0
		}
	case events.AppUpdate:
		m.appStarting, m.appClosing, m.appHeld = false, false, ev.Up
	}
}
