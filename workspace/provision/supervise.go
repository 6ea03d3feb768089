package provision

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

const (
	// A process that ends by itself is started again after firstPause, then twice that each time, up to longestRest.
	firstPause  = time.Second
	longestRest = time.Minute
	// stableAfter is how long a process must have lived for the pauses to begin anew.
	stableAfter = time.Minute
)

// supervised is an instance of a Process, and what watches over it. One goroutine, that of supervise, owns its process
// and its tail.
type supervised struct {
	*Instance
	p    *Process
	spec Spec
	log  *zap.Logger
	sink *sink
	tail *tail

	// stopping takes the one request to stop. gone is closed when supervise has returned, and result is what.
	stopping chan stopRequest
	gone     chan struct{}
	result   error

	// mu guards what the instance's users look at.
	mu    sync.Mutex
	rec   record
	pid   int
	ended bool
}

// A stopRequest asks for the end. It carries the caller's context, because it is the caller's patience.
type stopRequest struct {
	ctx context.Context //nolint:containedctx // see above
	out func(Line)
}

func (p *Process) newSupervised(spec Spec, out func(Line)) *supervised {
	s := &supervised{
		p: p, spec: spec, sink: &sink{out: out},
		log:      p.log.With(zap.String("workspace", spec.WorkspaceName), zap.Int64("build", spec.Build)),
		stopping: make(chan stopRequest),
		gone:     make(chan struct{}),
	}
	s.Instance = &Instance{ref: spec.Ref(), pid: s.currentPID, onEstablish: s.establish, exited: make(chan struct{})}
	return s
}

// launch starts the spec's process and records it. A fresh one begins a new output file.
func (s *supervised) launch(fresh bool) (process, error) {
	if err := s.spec.check(); err != nil {
		return nil, err
	}
	dir, err := s.spec.prepare()
	if err != nil {
		return nil, err
	}
	f, err := openFollower(s.spec.Dir, fresh, s.sink)
	if err != nil {
		return nil, err
	}
	output, err := os.OpenFile(logPath(s.spec.Dir), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	proc, err := s.p.sys.start(command{
		argv: s.spec.argv(), dir: dir, env: environment(s.p.cfg.Environ(), s.spec, s.p.owner), output: output,
		owner: s.p.owner, workspaceID: s.spec.WorkspaceID,
	})
	err = errors.Join(err, output.Close())
	if err != nil && proc == nil {
		return nil, errors.Join(err, f.close())
	}
	s.tail = startTail(f, s.log)
	if err == nil {
		err = s.record(proc)
	}
	if err != nil {
		_ = s.collect(proc) // how it ended is of no interest
		return nil, err
	}
	return proc, nil
}

// record writes down which process runs now.
func (s *supervised) record(proc process) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pid = proc.identity().PID
	s.rec.Process = proc.identity()
	s.rec.StartedAt = time.Now().UTC()
	return s.p.records.save(s.rec)
}

// What await has waited for.
type outcome int

const (
	elapsed  outcome = iota // the process has ended, or the pause is over
	stopped                 // there is a request to stop
	detached                // the provisioner closes
)

// supervise watches over a process, and those that replace it, until the instance has ended, and returns why: nil if it
// was stopped. It returns ErrClosed when the instance is let go.
func (s *supervised) supervise(proc process) error {
	pauses := backoff.ExponentialBackOff{InitialInterval: firstPause, Multiplier: 2, MaxInterval: longestRest}
	pauses.Reset()
	attempt := 0
	for {
		began := time.Now()
		what, request := s.await(proc.wait)
		switch what {
		case stopped:
			return s.shutdown(request, proc)
		case detached:
			proc.release()
			s.tail.detach()
			return ErrClosed
		case elapsed:
		}
		exit := s.collect(proc)
		if !s.isEstablished() {
			s.report(Exit{Ref: s.ref, Err: exit})
			s.sink.say(events.LogError, "%v", exit)
			if err := s.forget(); err != nil {
				s.log.Warn("a record cannot be removed", zap.Error(err))
			}
			return exit
		}
		if time.Since(began) >= stableAfter {
			pauses.Reset()
			attempt = 0
		}
		for proc = nil; proc == nil; {
			attempt++
			pause := pauses.NextBackOff()
			if exit != nil {
				s.report(Exit{Ref: s.ref, Err: exit, RestartIn: pause})
				s.sink.say(events.LogError, "%v; it is started again in %v", exit, pause)
				exit = nil
			}
			what, request := s.await(sleep(pause))
			switch what {
			case stopped:
				return s.shutdown(request, nil)
			case detached:
				return ErrClosed
			case elapsed:
			}
			proc = s.restart(attempt)
		}
	}
}

// await waits for wait, which fails only if its context is done, a request to stop, or the end of the provisioner.
func (s *supervised) await(wait func(context.Context) error) (outcome, stopRequest) {
	ctx, cancel := context.WithCancel(s.p.ctx)
	defer cancel()
	var err error
	over := make(chan struct{})
	go func() { defer close(over); err = wait(ctx) }()
	select {
	case <-over:
		if err != nil {
			return detached, stopRequest{}
		}
		return elapsed, stopRequest{}
	case request := <-s.stopping:
		cancel()
		<-over
		return stopped, request
	}
}

// sleep makes a wait of a pause.
func sleep(pause time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// restart starts the process again. It returns nil, and has said why, if that fails.
func (s *supervised) restart(attempt int) process {
	proc, err := s.launch(false)
	if err != nil {
		s.log.Warn("a workspace's process cannot be started again", zap.Error(err))
		s.sink.say(events.LogError, "cannot be started again: %v", err)
		return nil
	}
	s.sink.say(events.LogInfo, "started process %d again", proc.identity().PID)
	if s.p.cfg.OnRestart != nil {
		s.p.cfg.OnRestart(Restart{Ref: s.ref, PID: proc.identity().PID, Attempt: attempt})
	}
	return proc
}

func (s *supervised) report(exit Exit) {
	if s.p.cfg.OnExit != nil {
		s.p.cfg.OnExit(exit)
	}
}

func (s *supervised) establish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rec.Established || s.ended {
		return
	}
	s.rec.Established = true // also if it cannot be written down: the next server learns it from the agent
	if err := s.p.records.save(s.rec); err != nil {
		s.log.Warn("a record cannot be written", zap.Error(err))
	}
}

func (s *supervised) isEstablished() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec.Established
}

func (s *supervised) currentPID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}
