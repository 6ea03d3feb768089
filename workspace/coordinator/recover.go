package coordinator

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/provision"
)

// recover takes over what an earlier coordinator of this node has left: agents
// are waited for, processes are adopted or ended, and workspaces that should
// run but do not are started again. Builds under way are taken up afterwards,
// like any other.
func (c *Coordinator) recover(ctx context.Context) error {
	for _, e := range c.workspaces.cache.List() {
		if err := c.recoverAgents(ctx, &e.Value); err != nil {
			return err
		}
	}
	running := make(map[string]bool)
	for kind, p := range c.cfg.Provisioners {
		found, err := p.Recover(ctx, c.resolve)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			// The workspaces that it is about show what is wrong with them.
			c.log.Error("not all workspaces could be recovered", zap.String("provisioner", string(kind)), zap.Error(err))
		}
		for _, instance := range found.Adopted {
			running[instance.Ref().WorkspaceID] = true
			if rec, ok := c.workspaces.cached(instance.Ref().WorkspaceID); ok && rec.started() {
				instance.Established()
			}
		}
	}
	for _, e := range c.workspaces.cache.List() {
		r := e.Value
		if c.runnable(&r) && r.started() && !running[r.ID] {
			c.jobs.begin(c.closing, r.ID, job{number: r.Build.Number, revival: true}, func(ctx context.Context) { c.revive(ctx, &r) })
		}
		if r.deleted() {
			c.freeName(&r)
		}
	}
	return nil
}

// recoverAgents says of the agents that were connected to this node, and are not
// any more, that they are waited for. Some may have come back already.
func (c *Coordinator) recoverAgents(ctx context.Context, r *record) error {
	alive := func(session string) bool { return c.sessions.get(session) != nil }
	if !r.lost(c.cfg.Node, alive) {
		return nil
	}
	_, err := c.insist(ctx, r.ID, func(r *record) error {
		r.orphan(c.cfg.Node, alive, now())
		return nil
	})
	return err
}

// resolve tells a provisioner whether an instance that it has found should run.
func (c *Coordinator) resolve(ref provision.Ref) (provision.Spec, func(provision.Line), bool) {
	rec, ok := c.workspaces.cached(ref.WorkspaceID)
	if !ok || !c.runnable(&rec) || rec.admits() != ref.Build {
		return provision.Spec{}, nil, false
	}
	spec, err := c.spec(&rec, ref.Build)
	if err == nil {
		var out *output
		if out, err = c.output(rec.ID, rec.Build.Number); err == nil {
			return spec, out.line, true
		}
	}
	c.log.Error("a workspace cannot be recovered", zap.String("workspace", rec.Name), zap.Error(err))
	return provision.Spec{}, nil, false
}

// revive starts a workspace again that has ended while no coordinator looked
// after it, for as long as it takes: it is started, and says so.
func (c *Coordinator) revive(ctx context.Context, r *record) {
	p := c.provisioner(r.Template.Provisioner)
	out, err := c.output(r.ID, r.Build.Number)
	if err != nil || p == nil {
		c.log.Error("a workspace cannot be started again", zap.String("workspace", r.Name), zap.Error(err))
		return
	}
	out.say(events.LogWarn, "the workspace has ended while no server ran: it is started again")
	for pause := firstRevival; ; pause = min(2*pause, maxRevival) {
		instance, err := c.launch(ctx, p, r, out)
		if err == nil {
			instance.Established()
			return
		}
		if ctx.Err() != nil {
			return
		}
		out.say(events.LogError, fmt.Sprintf("%v; it is tried again in %v", err, pause))
		if errors.Is(sleep(ctx, pause), context.Canceled) {
			return
		}
	}
}
