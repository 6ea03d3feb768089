package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/tunneler/tunneler/events"
)

// Sources of log lines.
const (
	sourceAgent    = "agent"
	sourceStartup  = "startup_script"
	sourceShutdown = "shutdown_script"
)

func (a *agent) lines(source, stage string) *lineSplitter {
	return &lineSplitter{emit: func(line string) { a.journal.log(events.LogInfo, source, stage, line) }}
}

// startUp runs the startup script and the services, and reports how the
// workspace fares: every state as it is.
func (a *agent) startUp(ctx context.Context) {
	a.journal.lifecycle(events.LifecycleStarting, nil)
	var failed error // an error is never taken back by what comes after it
	script := a.targets.manifest.Template.StartupScript
	if script != nil && !script.Blocking {
		a.work.Go(func() {
			if err := a.startupScript(ctx); err != nil && ctx.Err() == nil {
				a.journal.log(events.LogError, sourceAgent, "start", err.Error())
			}
		})
	} else if script != nil {
		failed = a.startupScript(ctx)
	}
	if ctx.Err() != nil {
		return
	}
	if failed != nil {
		a.journal.log(events.LogError, sourceAgent, "start", failed.Error())
		a.journal.lifecycle(events.LifecycleStartError, failed)
	}
	late := a.startServices(ctx)
	if ctx.Err() != nil {
		return
	}
	if late != nil {
		a.journal.log(events.LogError, sourceAgent, "start", late.Error())
		if failed == nil {
			a.journal.lifecycle(events.LifecycleStartTimeout, late)
		}
		if !a.servicesReady(ctx) {
			return
		}
	}
	if failed == nil {
		a.journal.lifecycle(events.LifecycleReady, nil)
	}
}

// startupScript runs the script. When its time is over that is reported, and
// it may go on: what it does late is better than what is half done.
func (a *agent) startupScript(ctx context.Context) error {
	script := a.targets.manifest.Template.StartupScript
	m, err := a.family.start([]string{"/bin/sh", "-c", script.Run}, a.env(nil), a.dir(""), a.lines(sourceStartup, "start"))
	if err != nil {
		return fmt.Errorf("cannot run the startup script: %w", err)
	}
	limit := time.NewTimer(script.Timeout.Std())
	defer limit.Stop()
	for {
		select {
		case <-m.exited:
			m.drained()
			if err := exitError(m.err); err != nil {
				return fmt.Errorf("the startup script failed: %w", err)
			}
			return nil
		case <-limit.C:
			late := fmt.Errorf("the startup script still runs after %s", script.Timeout)
			a.journal.log(events.LogError, sourceAgent, "start", late.Error())
			if script.Blocking {
				a.journal.lifecycle(events.LifecycleStartTimeout, late)
			}
		case <-ctx.Done():
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.Grace)
			defer cancel()
			m.stop(stop)
			return ctx.Err()
		}
	}
}

// shutDown runs the shutdown script and reports how it went.
func (a *agent) shutDown(ctx context.Context) (final events.Lifecycle, err error) {
	a.journal.lifecycle(events.LifecycleShuttingDown, nil)
	script := a.targets.manifest.Template.ShutdownScript
	if script == nil {
		return events.LifecycleOff, nil
	}
	m, err := a.family.start([]string{"/bin/sh", "-c", script.Run}, a.env(nil), a.dir(""), a.lines(sourceShutdown, "stop"))
	if err != nil {
		return events.LifecycleShutdownError, fmt.Errorf("cannot run the shutdown script: %w", err)
	}
	limit := time.NewTimer(script.Timeout.Std())
	defer limit.Stop()
	select {
	case <-m.exited:
		m.drained()
		if err := exitError(m.err); err != nil {
			return events.LifecycleShutdownError, fmt.Errorf("the shutdown script failed: %w", err)
		}
		return events.LifecycleOff, nil
	case <-limit.C:
		err = fmt.Errorf("the shutdown script did not end within %s", script.Timeout)
	case <-ctx.Done():
		err = fmt.Errorf("the shutdown script was cut short")
	}
	stop, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	m.stop(stop)
	return events.LifecycleShutdownTimeout, err
}
