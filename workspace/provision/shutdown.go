package provision

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

// collect ends what is left of a process, delivers its last output and says how it ended.
func (s *supervised) collect(proc process) *ExitError {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	pid := proc.identity().PID
	status, err := s.finish(ctx, proc)
	if err != nil {
		s.log.Error("processes of a workspace are left", zap.Error(err))
		s.sink.say(events.LogError, "%v", err)
	}
	return &ExitError{Ref: s.ref, PID: pid, Status: status, Tail: s.sink.takeLast()}
}

// finish kills a process and all that belongs to it, reaps it and delivers the last output.
func (s *supervised) finish(ctx context.Context, proc process) (Status, error) {
	var status Status
	err := proc.kill(ctx)
	if err == nil {
		status = proc.reap()
	} else {
		proc.release() // reaping might wait for ever
	}
	s.mu.Lock()
	s.pid = 0
	s.mu.Unlock()
	if s.tail != nil {
		s.tail.finish()
	}
	return status, err
}

// shutdown stops the workspace: politely, then not. proc is nil if none runs at the moment.
func (s *supervised) shutdown(request stopRequest, proc process) error {
	s.sink.redirect(request.out)
	if proc != nil {
		s.ask(request.ctx, proc)
	}
	killing, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	var err error
	if proc == nil {
		err = s.p.sys.sweep(killing, s.p.owner, s.ref.WorkspaceID)
	} else {
		_, err = s.finish(killing, proc)
	}
	if err != nil {
		// The record stays, so that the next stop or server tries again.
		s.sink.say(events.LogError, "%v", err)
		return err
	}
	s.sink.say(events.LogInfo, "stopped")
	return s.forget()
}

// ask asks the process group to end and gives it the time to.
func (s *supervised) ask(patience context.Context, proc process) {
	ctx, cancel := context.WithTimeout(patience, s.rec.Grace)
	defer cancel()
	s.sink.say(events.LogInfo, "stopping")
	err := proc.terminate()
	if err == nil {
		err = proc.wait(ctx)
	}
	if err == nil {
		err = proc.waitGroup(ctx)
	}
	switch {
	case err == nil:
	case patience.Err() != nil:
		s.sink.say(events.LogWarn, "is killed: nobody waits for it to stop")
	case errors.Is(err, context.DeadlineExceeded):
		s.sink.say(events.LogWarn, "did not stop within %v and is killed", s.rec.Grace)
	default:
		s.log.Warn("a workspace cannot be asked to stop", zap.Error(err))
		s.sink.say(events.LogWarn, "cannot be asked to stop (%v) and is killed", err)
	}
}

// forget removes the instance's record. It has ended.
func (s *supervised) forget() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	return s.p.records.remove(s.ref.WorkspaceID)
}
