package coordinator

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/template"
)

const (
	// healthInterval is the time between two questions whether the store can
	// work, and healthTimeout how long each may take.
	healthInterval = 2 * time.Second
	healthTimeout  = 2 * time.Second
	// sweepInterval is the time between two searches for what is kept no longer.
	sweepInterval = time.Hour
)

// Run takes over what an earlier coordinator has left, then works on builds and
// looks after agents until ctx ends or Close is called, which is no error. It
// is called once.
func (c *Coordinator) Run(ctx context.Context) error {
	leave, ok := c.runs.enter()
	if !ok {
		return errShuttingDown
	}
	defer leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.closing, cancel)()

	// Whatever changes from now on is told, so that nothing is missed between
	// recovery and work.
	changes := c.workspaces.cache.SubscribeAll()
	defer changes.Close()
	if err := c.recover(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	c.recovered.Store(true)
	defer c.recovered.Store(false)

	patience := newPatience(c)
	defer patience.stop()
	for _, e := range c.workspaces.cache.List() {
		c.review(&e.Value, patience)
	}
	health, sweep := time.NewTicker(healthInterval), time.NewTicker(sweepInterval)
	defer health.Stop()
	defer sweep.Stop()
	c.sweep(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-changes.C:
			if !ok {
				return errors.New("the store is closed")
			}
			for _, id := range changes.Take() {
				if rec, ok := c.workspaces.cached(id); ok {
					c.review(&rec, patience)
				}
			}
		case <-c.jobs.again:
			for _, e := range c.workspaces.cache.List() {
				if e.Value.building() {
					c.review(&e.Value, patience)
				}
			}
		case <-health.C:
			c.checkHealth(ctx)
		case <-sweep.C:
			c.sweep(ctx)
		}
	}
}

// review does what a record, as it is now, needs done here.
func (c *Coordinator) review(r *record, p *patience) {
	c.sessions.review(r)
	if r.Node != c.cfg.Node {
		return
	}
	p.review(r)
	if r.building() {
		id, number := r.ID, r.Build.Number
		c.jobs.begin(c.closing, id, job{number: number}, func(ctx context.Context) { c.runBuild(ctx, id, number) })
	}
}

// checkHealth asks whether the store can work, and says so when that changes.
func (c *Coordinator) checkHealth(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	err := c.cfg.Store.Ready(ctx)
	healthy := err == nil
	if c.storeHealthy.Swap(healthy) == healthy || c.closing.Err() != nil {
		return
	}
	if healthy {
		c.log.Info("the store is back")
	} else {
		c.log.Error("the store is out of reach: nothing can be changed until it is back", zap.Error(err))
	}
}

// patience ends the wait for agents that do not come.
type patience struct {
	c      *Coordinator
	timers map[string]waiting // by workspace
}

type waiting struct {
	since time.Time
	timer *time.Timer
}

func newPatience(c *Coordinator) *patience { return &patience{c: c, timers: make(map[string]waiting)} }

// review begins or ends the wait for a workspace's agent. A wait is as long as
// this coordinator's clock says, from now: others' clocks do not matter.
func (p *patience) review(r *record) {
	a := r.agent(agentName)
	expected := r.started() && a != nil && a.Status == events.AgentConnecting
	w, is := p.timers[r.ID]
	if is && (!expected || !w.since.Equal(a.Since)) {
		w.timer.Stop()
		delete(p.timers, r.ID)
		is = false
	}
	if !expected || is {
		return
	}
	limit := p.c.cfg.AgentReturn
	if a.ID == "" {
		limit = r.Template.StartTimeout.Std()
	}
	id, since := r.ID, a.Since
	p.timers[id] = waiting{since, time.AfterFunc(limit, func() { p.c.giveUp(id, since) })}
}

func (p *patience) stop() {
	for _, w := range p.timers {
		w.timer.Stop()
	}
}

// giveUp stores that an agent that is waited for since then has not come.
func (c *Coordinator) giveUp(id string, since time.Time) {
	leave, ok := c.runs.enter()
	if !ok {
		return
	}
	defer leave()
	_, err := c.insist(c.closing, id, func(r *record) error {
		if !r.overdue(agentName, since, now()) {
			return errUnchanged
		}
		return nil
	})
	if err != nil && !errors.Is(err, errUnchanged) && c.closing.Err() == nil {
		c.log.Warn("it cannot be stored that an agent has not come", zap.String("workspace_id", id), zap.Error(err))
	}
}

// sweep removes what is left of workspaces that were deleted long ago.
func (c *Coordinator) sweep(ctx context.Context) {
	for _, e := range c.workspaces.cache.List() {
		r := &e.Value
		if !r.deleted() || time.Since(r.DeletedAt) < c.cfg.Retention {
			continue
		}
		if err := c.erase(ctx, r, e.Revision); err != nil && ctx.Err() == nil {
			c.log.Debug("a deleted workspace's records stay for now", zap.String("workspace_id", r.ID), zap.Error(err))
		}
	}
}

// erase removes a deleted workspace's logs, builds and record, in this order:
// what is left after a crash is found again by the record.
func (c *Coordinator) erase(ctx context.Context, r *record, revision uint64) error {
	if err := c.workspaces.free(ctx, r); err != nil {
		return err
	}
	names := r.agentProcesses()
	for number := int64(1); number <= r.Build.Number; number++ {
		names = append(names, buildLogName(r.ID, number))
	}
	for _, name := range names {
		log, err := c.cfg.Store.Log(name)
		if err == nil {
			err = log.Purge(ctx)
		}
		if err != nil {
			return err
		}
	}
	return c.workspaces.erase(ctx, r, revision)
}

// runnable tells whether the workspace's processes are to be found here.
func (c *Coordinator) runnable(r *record) bool {
	return r.Node == c.cfg.Node && r.Template.Provisioner != template.ProvisionerNone && !r.deleted()
}
