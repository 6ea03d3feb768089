package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/template"
)

// Sources of log lines; a service's lines have its name.
const (
	sourceAgent    = "agent"
	sourceStartup  = "startup_script"
	sourceShutdown = "shutdown_script"
)

// Stages of log lines.
const (
	stageStart = "start"
	stageRun   = "run"
	stageStop  = "stop"
)

// scriptGrace is how long a script that has to end may take once asked to.
const scriptGrace = time.Second

func (a *agent) lines(source, stage string) *lineSplitter {
	return &lineSplitter{emit: func(line string) { a.journal.log(events.LogInfo, source, stage, line) }}
}

// say writes a line of the agent's own about something that went wrong.
func (a *agent) say(stage string, err error) {
	a.journal.log(events.LogError, sourceAgent, stage, err.Error())
}

// script starts one of the template's scripts.
func (a *agent) script(run, source, stage string) (*member, error) {
	return a.family.start([]string{"/bin/sh", "-c", run}, a.family.env, a.dir(""), a.lines(source, stage))
}

// runStartupScript runs the script and tells how it fares, until it has ended or
// ctx does. When its time is over it goes on: what it does late is better than
// what is half done.
func (a *agent) runStartupScript(ctx context.Context, script *template.StartupScript, tell func(progress, error)) {
	m, err := a.script(script.Run, sourceStartup, stageStart)
	if err != nil {
		tell(failed, fmt.Errorf("cannot run the startup script: %w", err))
		return
	}
	limit := time.NewTimer(script.Timeout.Std())
	defer limit.Stop()
	for {
		select {
		case <-m.exited:
			// What it has left in the background may stay.
			m.output.settle()
			a.family.leave(m)
			if err := exitError(m.err); err != nil {
				tell(failed, fmt.Errorf("the startup script failed: %w", err))
			} else {
				tell(done, nil)
			}
			return
		case <-limit.C:
			tell(late, fmt.Errorf("the startup script still runs after %s", script.Timeout))
		case <-ctx.Done():
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), scriptGrace)
			defer cancel()
			m.stop(stop)
			return
		}
	}
}

// runShutdownScript runs the script, if there is one. The error, with the
// lifecycle that it means, says that it did not go well.
func (a *agent) runShutdownScript() (events.Lifecycle, error) {
	script := a.targets.manifest.Template.ShutdownScript
	if script == nil {
		return events.LifecycleOff, nil
	}
	m, err := a.script(script.Run, sourceShutdown, stageStop)
	if err != nil {
		return events.LifecycleShutdownError, fmt.Errorf("cannot run the shutdown script: %w", err)
	}
	limit := time.NewTimer(script.Timeout.Std())
	defer limit.Stop()
	select {
	case <-m.exited:
		m.output.settle()
		a.family.leave(m)
		if err := exitError(m.err); err != nil {
			return events.LifecycleShutdownError, fmt.Errorf("the shutdown script failed: %w", err)
		}
		return events.LifecycleOff, nil
	case <-limit.C:
		stop, cancel := context.WithTimeout(context.Background(), scriptGrace)
		defer cancel()
		m.stop(stop)
		return events.LifecycleShutdownTimeout, fmt.Errorf("the shutdown script did not end within %s", script.Timeout)
	}
}
