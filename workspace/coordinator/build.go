package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/provision"
	"github.com/tunneler/tunneler/workspace/template"
)

const (
	// stopPatience is how long processes have to end that belong to a build that
	// has failed.
	stopPatience = 10 * time.Second
	// firstRevival and maxRevival bound the time between two attempts to start
	// again what has ended while no coordinator ran.
	firstRevival = time.Second
	maxRevival   = time.Minute
	// maxStop bounds a stop: the shutdown script's own time-out and then some.
	maxStop = 10 * time.Minute
)

// errInterrupted ends the work on a build that is left to the next coordinator.
var errInterrupted = errors.New("the server is shutting down")

// runBuild brings a build to its end. It may have been begun before, by a
// coordinator that did not live to end it: everything here can be done again.
func (c *Coordinator) runBuild(ctx context.Context, id string, number int64) {
	rec, err := c.insist(ctx, id, func(r *record) error {
		if r.Build.Number != number || r.Build.Status.Final() {
			return errUnchanged
		}
		r.beginBuild(number, now())
		return nil
	})
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, errUnchanged) {
			c.log.Error("a build cannot be begun", zap.String("workspace_id", id), zap.Int64("build", number), zap.Error(err))
		}
		return
	}
	out, err := c.output(id, number)
	if err == nil {
		err = c.transition(ctx, &rec, out)
		if errors.Is(err, errInterrupted) || c.life.Err() != nil {
			return
		}
		if err != nil {
			out.say(events.LogError, err.Error())
		}
		out.flush() // the end of a build comes after all that it had to say
	}
	c.endBuild(rec, err)
}

// transition does what the build is to do. Its error is the build's.
func (c *Coordinator) transition(ctx context.Context, rec *record, out *output) error {
	p := c.provisioner(rec.Template.Provisioner)
	if p == nil {
		return fmt.Errorf("this server has no provisioner %q", rec.Template.Provisioner)
	}
	switch rec.Build.Transition {
	case events.TransitionStart:
		return c.start(ctx, p, rec, out)
	case events.TransitionStop:
		return c.stop(p, rec, out)
	case events.TransitionDelete:
		if err := c.stop(p, rec, out); err != nil {
			return err
		}
		return c.removeDir(rec)
	case events.TransitionUnknown:
	}
	return fmt.Errorf("unknown transition %d", rec.Build.Transition)
}

// endBuild stores how a build has ended.
func (c *Coordinator) endBuild(rec record, cause error) {
	number := rec.Build.Number
	if cause != nil {
		cause = errors.New(cut(cause.Error(), maxErrorText))
	}
	ended, err := c.insist(c.life, rec.ID, func(r *record) error {
		r.finishBuild(number, cause, now())
		return nil
	})
	if err != nil {
		if c.life.Err() == nil {
			c.log.Error("a build's end cannot be stored", zap.String("workspace", rec.Name), zap.Int64("build", number), zap.Error(err))
		}
		return
	}
	c.metrics.build(ended.Build.Build)
	c.log.Info("build ended", zap.String("workspace", rec.Name), zap.String("workspace_id", rec.ID), zap.Int64("build", number),
		zap.Stringer("transition", rec.Build.Transition), zap.Stringer("status", ended.Build.Status), zap.NamedError("cause", cause))
	if ended.deleted() {
		c.freeName(&ended)
	}
}

// freeName gives back the name of a deleted workspace. Should that fail, who
// asks for the name next finds out that it is free.
func (c *Coordinator) freeName(rec *record) {
	c.jobs.forget(rec.ID)
	if err := c.workspaces.free(c.life, rec); err != nil {
		c.log.Debug("a name could not be given back", zap.String("workspace", rec.Name), zap.Error(err))
	}
}

// start runs the workspace's agent and waits until it has come. For an agent
// that somebody else starts it does not wait.
func (c *Coordinator) start(ctx context.Context, p provision.Provisioner, rec *record, out *output) error {
	limit := rec.Template.StartTimeout.Std()
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	instance, err := c.launch(timed, p, rec, out)
	if err == nil && rec.Template.Provisioner != template.ProvisionerNone {
		err = c.awaitAgent(timed, rec, instance)
	}
	switch {
	case err == nil:
		instance.Established()
		return nil
	case ctx.Err() != nil:
		return errInterrupted // what was started goes on: the next coordinator finds it
	case errors.Is(err, context.DeadlineExceeded):
		err = &startTimeoutError{limit, out.lastLine()}
	}
	patience, stop := context.WithTimeout(c.closing, stopPatience)
	defer stop()
	return errors.Join(err, p.Stop(patience, rec.ID, out.line))
}

// startTimeoutError says that an agent did not come in time.
type startTimeoutError struct {
	limit time.Duration
	last  string // the last line of the workspace's output
}

func (e *startTimeoutError) Error() string {
	s := fmt.Sprintf("the agent did not report within %v", e.limit)
	if e.last != "" {
		s += "; the last line of output is: " + cut(e.last, 300)
	}
	return s
}

// launch starts the process, or finds that it runs. Another build's, which a
// failed stop has left, is ended first.
func (c *Coordinator) launch(ctx context.Context, p provision.Provisioner, rec *record, out *output) (*provision.Instance, error) {
	spec, err := c.spec(rec, rec.Build.Number)
	if err != nil {
		return nil, err
	}
	instance, err := p.Start(ctx, spec, out.line)
	var busy *provision.BusyError
	if !errors.As(err, &busy) {
		return instance, err
	}
	if err := p.Stop(ctx, rec.ID, out.line); err != nil {
		return nil, err
	}
	return p.Start(ctx, spec, out.line)
}

// awaitAgent returns when the build's agent has said hello, here or to another
// coordinator, or the instance has ended.
func (c *Coordinator) awaitAgent(ctx context.Context, rec *record, instance *provision.Instance) error {
	changes := c.workspaces.cache.Subscribe(rec.ID)
	defer changes.Close()
	for {
		now, _ := c.workspaces.cached(rec.ID)
		if a := now.agent(agentName); a != nil && a.Build == rec.Build.Number && a.ID != "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-instance.Exited():
			if err := instance.Err(); err != nil {
				return err
			}
			return errors.New("the workspace was stopped before its agent had reported")
		case _, ok := <-changes.C:
			if !ok {
				return errInterrupted
			}
			changes.Take()
		}
	}
}

// stop ends all that runs of a workspace. The close of the coordinator does not
// end it, only the end of its patience does.
func (c *Coordinator) stop(p provision.Provisioner, rec *record, out *output) error {
	ctx, cancel := context.WithTimeout(c.life, maxStop)
	defer cancel()
	return p.Stop(ctx, rec.ID, out.line)
}

// removeDir removes the workspace's directory with all that is in it.
func (c *Coordinator) removeDir(rec *record) error {
	dir := c.dir(rec.ID)
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	// Directories that cannot be written, as package managers leave them.
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) //nolint:gosec // it is about to be removed; what cannot be is said below
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// dir is the workspace's own directory.
func (c *Coordinator) dir(id string) string { return filepath.Join(c.cfg.WorkspaceDir, id) }
