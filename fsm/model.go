package fsm

import (
	"time"

	"github.com/tunneler/tunneler/events"
)

// model is all that guards may look at, besides the event and the rules. It is
// a plain value: copying it copies the machine's memory.
type model struct {
	// down is set when the tunnel is to go down; it is never cleared.
	down bool
	// cause is the first reason to go down; ReasonNone for a plain shutdown.
	cause Reason
	// causeErr and causeState are the detail of the cause.
	causeErr   error
	causeState State

	build    events.BuildUpdate // snapshot; meaningful when hasBuild
	hasBuild bool
	agent    events.AgentUpdate // snapshot; no agent when the ID is empty
	watch    events.WatchState

	target       target // what is being dialled, or is connected
	dialing      bool   // a dial is in flight
	dialCanceled bool   // and has been cancelled
	connHeld     bool   // a connection is up and not yet reported down
	appStarting  bool   // an application start is in flight
	appHeld      bool   // an application is up and not yet reported down
	appClosing   bool   // and is being closed
	starting     bool   // a StartWorkspace is in flight
	everUp       bool   // the tunnel has worked once
	attempt      int    // dials since the last stable connection
	lastDialErr  error  // why the last dial failed, or the last connection ended
	watchErr     error  // why the watch is not up
}

// target is what a tailnet ends at.
type target struct {
	agent string
	build int64
}

// rules is the part of the configuration that guards read.
type rules struct {
	noAutostart      bool
	noWaitForScripts bool
	strictScripts    bool
	onStop           OnStop
	maxAttempts      int
	stableAfter      time.Duration
}

func (m *model) buildIs(t events.Transition, s events.JobStatus) bool {
	return m.hasBuild && m.build.Transition == t && m.build.Status == s
}

func (m *model) buildActive(t events.Transition) bool {
	return m.hasBuild && m.build.Transition == t && !m.build.Status.Final()
}

// agentCurrent: the agent snapshot belongs to the current build and the
// coordinator hears it.
func (m *model) agentCurrent() bool {
	return m.agent.ID != "" && m.agent.Build == m.build.Number && m.agent.Status == events.AgentConnected
}

func (m *model) agentBadStart() bool {
	return m.agent.Lifecycle == events.LifecycleStartError || m.agent.Lifecycle == events.LifecycleStartTimeout
}

// agentReady: connect now. An agent whose scripts failed is connected to, with
// a warning, unless strict: waiting longer cannot help.
func (m *model) agentReady(r *rules) bool {
	if !m.agentCurrent() {
		return false
	}
	switch m.agent.Lifecycle {
	case events.LifecycleReady:
		return true
	case events.LifecycleStartError, events.LifecycleStartTimeout:
		return !r.strictScripts
	case events.LifecycleStarting:
		return r.noWaitForScripts
	default:
		return false
	}
}

// mayStart: this tunneler may start the workspace. A reconnect must not start
// one that its user has just stopped.
func (m *model) mayStart(r *rules) bool {
	return !r.noAutostart && (!m.everUp || r.onStop == OnStopRestart)
}
