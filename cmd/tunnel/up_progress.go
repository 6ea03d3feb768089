package main

import (
	"fmt"
	"time"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/fsm"
)

// progress tells a person, or a program that reads JSON, how a tunneler fares.
// Its observe method runs in the tunneler's loop.
type progress struct {
	p         *program
	workspace string
	began     time.Time
	entered   time.Time
	wasUp     bool
	lost      bool // the tunnel was up and is not
	watch     events.WatchState
	degraded  bool
	path      events.PathUpdate
	ready     func() // called once, when the tunnel first works
	json      *jsonEvents
}

// stages are what is going on in a state, and what has been reached when it is
// left on the way up.
var stages = map[fsm.State]struct{ doing, done string }{
	fsm.WaitToStart:             {"waiting for workspace %s to be stopped or started", ""},
	fsm.WaitForWorkspaceStarted: {"starting workspace %s", "workspace %s started"},
	fsm.WaitForAgent:            {"waiting for the agent of %s", "agent ready"},
	fsm.EstablishTailnet:        {"connecting to %s", "connected to %s"},
	fsm.ShutdownApplication:     {"closing forwards", "forwards closed"},
	fsm.ShutdownTailnet:         {"closing the connection", "connection closed"},
}

func (g *progress) observe(t fsm.Transition) {
	if t.Outcome == fsm.Moved {
		g.moved(t)
	}
	switch ev := t.Event.(type) {
	case events.BuildLog:
		g.log("build", ev.Log)
	case events.AgentLog:
		g.log("agent", ev.Log)
	case events.PathUpdate:
		g.pathChanged(ev)
	case events.WatchUpdate:
		g.watchChanged(ev)
	case events.BuildUpdate:
		if t.Outcome == fsm.Stayed && t.Trigger == fsm.TriggerStopActive {
			g.p.ui.warn("workspace %s is being stopped; the tunnel stays until its agent is gone", g.workspace)
		}
	case events.AgentUpdate:
		if t.Trigger == fsm.TriggerAgentBadStart && t.To == fsm.EstablishTailnet {
			g.p.ui.warn("the startup script of %s did not succeed (%s); connecting all the same", g.workspace, ev.Lifecycle)
		}
	case events.TailnetUpdate:
		if !ev.Up && ev.Err != nil && t.To != fsm.Exit && t.To != fsm.ShutdownApplication {
			g.p.ui.info("connection: %s", oneLine(ev.Err.Error()))
		}
	}
}

func (g *progress) moved(t fsm.Transition) {
	if g.json != nil {
		g.json.state(t)
	}
	ui := g.p.ui
	ui.endLive()
	if s, ok := stages[t.From]; ok && s.done != "" && t.To > t.From && (t.To <= fsm.ApplicationUp || t.From >= fsm.ShutdownApplication) {
		ui.doneStage(g.fill(s.done), t.Time.Sub(g.entered))
	}
	g.entered = t.Time
	if t.From == fsm.ApplicationUp && t.To < fsm.ShutdownApplication || t.From == fsm.ApplicationUp && t.To == fsm.ShutdownTailnet {
		g.lost = true
	}
	if s, ok := stages[t.To]; ok {
		ui.begin(g.fill(s.doing))
	}
	if t.To != fsm.ApplicationUp {
		return
	}
	if !g.wasUp {
		g.wasUp = true
		g.ready()
	} else if g.lost {
		ui.doneStage("the tunnel is up again", 0)
	}
	g.lost = false
}

func (g *progress) fill(s string) string {
	for i := range s {
		if s[i] == '%' {
			return fmt.Sprintf(s, g.workspace)
		}
	}
	return s
}

func (g *progress) log(kind string, l events.Log) {
	if g.json != nil {
		g.json.log(kind, l)
		return
	}
	if l.Level == events.LogDebug && g.p.flags.verbose == 0 {
		return
	}
	if g.wasUp && g.p.flags.verbose == 0 && l.Level < events.LogWarn {
		return // a tunnel that is up is quiet
	}
	source := l.Source
	if source == "" {
		source = kind
	}
	g.p.ui.log(source, l.Output)
}

func (g *progress) pathChanged(u events.PathUpdate) {
	if g.json != nil {
		g.json.path(u)
	}
	switch {
	case u.Degraded && !g.degraded:
		g.p.ui.warn("no sign of life from %s on the %s path for a while", g.workspace, u.Kind)
	case !u.Degraded && g.degraded:
		g.p.ui.info("%s answers again", g.workspace)
	case u.Kind != g.path.Kind || u.Addr != g.path.Addr:
		g.p.ui.info("path: %s %s", u.Kind, u.Addr)
	}
	g.path, g.degraded = u, u.Degraded
}

func (g *progress) watchChanged(u events.WatchUpdate) {
	switch {
	case u.State == events.WatchRetrying && g.watch != events.WatchRetrying:
		detail := ""
		if u.Err != nil {
			detail = ": " + oneLine(u.Err.Error())
		}
		g.p.ui.info("the coordinator is out of reach, trying again%s", detail)
	case u.State == events.WatchUp && g.watch == events.WatchRetrying:
		g.p.ui.info("the coordinator is back")
	case u.State == events.WatchLost && g.wasUp:
		g.p.ui.warn("the coordinator ended the watch (%s); the tunnel stays while it lasts", u.Err)
	}
	g.watch = u.State
}
