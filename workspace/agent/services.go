package agent

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/template"
)

const (
	// Services that end are started again after minRestart, doubled up to
	// maxRestart, and from the beginning once one has run for restartReset.
	minRestart   = 200 * time.Millisecond
	maxRestart   = 30 * time.Second
	restartReset = time.Minute
	// probeInterval is the time between two looks whether a service is ready.
	probeInterval = 20 * time.Millisecond
)

// startServices starts all services and waits until each is ready or its time
// for that is over, which is the error.
func (a *agent) startServices(ctx context.Context) error {
	services := a.targets.manifest.Template.Services
	errs := make([]error, len(services))
	var wg sync.WaitGroup
	for i, s := range services {
		a.work.Go(func() { a.keep(ctx, s) })
		if s.Ready == nil {
			continue
		}
		wg.Go(func() {
			limit, cancel := context.WithTimeout(ctx, s.Ready.Timeout.Std())
			defer cancel()
			if !a.await(limit, s) {
				errs[i] = fmt.Errorf("service %s does not answer on port %d after %s", s.Name, s.Ready.Port, s.Ready.Timeout)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// servicesReady waits for those that were late, as long as it takes.
func (a *agent) servicesReady(ctx context.Context) bool {
	for _, s := range a.targets.manifest.Template.Services {
		if s.Ready != nil && !a.await(ctx, s) {
			return false
		}
	}
	return true
}

// await waits until the service accepts a connection.
func (a *agent) await(ctx context.Context, s template.Service) bool {
	h := events.OpenHeader{Network: events.NetworkTCP, Target: net.JoinHostPort("localhost", strconv.Itoa(s.Ready.Port)), Deadline: time.Second}
	for {
		if conn, err := a.targets.dial(ctx, h); err == nil {
			conn.Close()
			return true
		}
		if !sleep(ctx, probeInterval) {
			return false
		}
	}
}

// keep runs a service until ctx ends, again and again as its template says.
func (a *agent) keep(ctx context.Context, s template.Service) {
	delay := minRestart
	for {
		began := time.Now()
		err := a.serviceOnce(ctx, s)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) >= restartReset {
			delay = minRestart
		}
		again := s.Restart == template.RestartAlways || s.Restart == template.RestartOnFailure && err != nil
		what := "ended"
		if err != nil {
			what = err.Error()
		}
		if !again {
			a.journal.log(events.LogWarn, sourceAgent, "run", fmt.Sprintf("service %s: %s", s.Name, what))
			return
		}
		a.journal.log(events.LogWarn, sourceAgent, "run", fmt.Sprintf("service %s: %s; starting it again in %s", s.Name, what, delay))
		if !sleep(ctx, delay) {
			return
		}
		delay = min(2*delay, maxRestart)
	}
}

// serviceOnce runs a service to its end, or stops it when ctx ends.
func (a *agent) serviceOnce(ctx context.Context, s template.Service) error {
	m, err := a.family.start(s.Command.Argv(), a.env(s.Env), a.dir(s.Directory), a.lines(s.Name, "run"))
	if err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	select {
	case <-m.exited:
		m.drained()
		return exitError(m.err)
	case <-ctx.Done():
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.Grace)
		defer cancel()
		m.stop(grace)
		return nil
	}
}
