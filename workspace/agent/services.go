package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
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

	// The time between two looks whether a service is ready, which doubles.
	minProbe = 10 * time.Millisecond
	maxProbe = time.Second
)

// startUp runs the startup script and then the services, and reports how the
// workspace fares: every state as it is. Services wait for a blocking script
// until its time is over: one that never ends must not keep them. The start ends
// with ctx, services go on until theirs does.
func (a *agent) startUp(ctx, running context.Context) {
	t := &a.targets.manifest.Template
	s := &startup{report: a.journal.lifecycle, say: func(err error) { a.say(stageStart, err) }}
	scriptStep := -1
	if t.StartupScript != nil {
		scriptStep = s.add(t.StartupScript.Blocking)
	}
	steps := make([]int, len(t.Services))
	for i, service := range t.Services {
		steps[i] = s.add(service.Ready != nil)
	}
	s.begin()
	if err := a.makeDir(); err != nil {
		s.say(err) // what needs them will fail and say so again
	}

	if t.StartupScript != nil {
		told := make(chan struct{}, 2) // late, then ended
		a.starting.Go(func() {
			a.runStartupScript(ctx, t.StartupScript, func(p progress, err error) {
				s.set(scriptStep, p, err)
				told <- struct{}{}
			})
		})
		if t.StartupScript.Blocking {
			select {
			case <-told:
			case <-ctx.Done():
			}
		}
	}
	if ctx.Err() != nil {
		return
	}
	for i, service := range t.Services {
		tell := func(p progress, err error) { s.set(steps[i], p, err) }
		if service.Ready == nil {
			tell(done, nil)
		} else {
			a.starting.Go(func() { a.await(ctx, service, tell) })
		}
		a.work.Go(func() {
			if err := a.keep(running, service); err != nil {
				tell(failed, err) // which means nothing to one that was ready
			}
		})
	}
}

// await tells when the service accepts a connection, and when its time for that
// is over.
func (a *agent) await(ctx context.Context, s template.Service, tell func(progress, error)) {
	h := events.OpenHeader{Network: events.NetworkTCP, Target: net.JoinHostPort("localhost", strconv.Itoa(s.Ready.Port)), Deadline: time.Second}
	limit, told := time.Now().Add(s.Ready.Timeout.Std()), false
	for interval := minProbe; ; interval = min(2*interval, maxProbe) {
		conn, err := a.targets.dial(ctx, h)
		if err == nil {
			conn.Close()
			tell(done, nil)
			return
		}
		left := time.Until(limit)
		if !told && left <= 0 {
			told = true
			tell(late, fmt.Errorf("service %s does not answer on port %d after %s", s.Name, s.Ready.Port, s.Ready.Timeout))
		}
		if !told {
			interval = min(interval, left)
		}
		if !sleep(ctx, interval) {
			return
		}
	}
}

// keep runs a service until ctx ends, again and again as its template says. The
// error says that it has ended and is not started again.
func (a *agent) keep(ctx context.Context, s template.Service) error {
	delay := minRestart
	for {
		began := time.Now()
		err := a.serviceOnce(ctx, s)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) >= restartReset {
			delay = minRestart
		}
		ended := fmt.Errorf("service %s ended", s.Name)
		if err != nil {
			ended = fmt.Errorf("service %s: %w", s.Name, err)
		}
		again := s.Restart == template.RestartAlways || s.Restart == template.RestartOnFailure && err != nil
		if !again {
			a.journal.log(events.LogWarn, sourceAgent, stageRun, ended.Error())
			return ended
		}
		a.journal.log(events.LogWarn, sourceAgent, stageRun, fmt.Sprintf("%v; starting it again in %s", ended, delay))
		if !sleep(ctx, delay) {
			return nil
		}
		delay = min(2*delay, maxRestart)
	}
}

// serviceOnce runs a service to its end, or stops it when ctx ends.
func (a *agent) serviceOnce(ctx context.Context, s template.Service) error {
	m, err := a.family.start(s.Command.Argv(), a.env(s.Env), a.dir(s.Directory), a.lines(s.Name, stageRun))
	if err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	select {
	case <-m.exited:
		m.clear(ctx)
		return exitError(m.err)
	case <-ctx.Done():
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.Grace)
		defer cancel()
		m.stop(grace)
		return nil
	}
}

// makeDir makes the template's directory, if it lies inside the workspace's.
func (a *agent) makeDir() error {
	if filepath.IsAbs(a.targets.manifest.Template.Directory) {
		return nil
	}
	return os.MkdirAll(a.dir(""), 0o700)
}
