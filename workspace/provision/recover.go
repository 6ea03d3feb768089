package provision

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// recoveries is how many workspaces are recovered at the same time: each may have to wait for processes to end.
const recoveries = 8

// Recover implements Provisioner. An error about one workspace does not keep the others from being recovered.
func (p *Process) Recover(ctx context.Context, resolve Resolve) (Recovered, error) {
	leave, err := p.enter()
	if err != nil {
		return Recovered{}, err
	}
	defer leave()
	ids, err := p.records.list()
	if err != nil {
		return Recovered{}, err
	}
	var (
		mu    sync.Mutex
		found Recovered
		errs  []error
		group errgroup.Group
	)
	group.SetLimit(recoveries)
	for _, id := range ids {
		group.Go(func() error {
			one, err := p.recoverOne(ctx, id, resolve)
			mu.Lock()
			defer mu.Unlock()
			found.Adopted = append(found.Adopted, one.Adopted...)
			found.Lost = append(found.Lost, one.Lost...)
			errs = append(errs, err)
			return nil
		})
	}
	_ = group.Wait() // its functions collect their errors
	slices.SortFunc(found.Adopted, func(a, b *Instance) int {
		return strings.Compare(a.ref.WorkspaceID, b.ref.WorkspaceID)
	})
	slices.SortFunc(found.Lost, func(a, b Lost) int { return strings.Compare(a.WorkspaceID, b.WorkspaceID) })
	return found, errors.Join(append(errs, p.clearUnknown(ctx))...)
}

// recoverOne recovers the workspace of one record.
func (p *Process) recoverOne(ctx context.Context, workspaceID string, resolve Resolve) (Recovered, error) {
	unlock, err := p.locks.lock(ctx, workspaceID)
	if err != nil {
		return Recovered{}, err
	}
	defer unlock()
	if err := ctx.Err(); err != nil || p.instance(workspaceID) != nil {
		return Recovered{}, err
	}
	rec, err := p.records.load(workspaceID)
	if err != nil {
		p.log.Warn("a record cannot be read and is dropped", zap.Error(err))
		return Recovered{}, p.clear(workspaceID)
	}
	spec, out, wanted := resolve(rec.ref())
	if !wanted || spec.WorkspaceID != rec.WorkspaceID || spec.Build != rec.Build {
		return Recovered{}, p.stopRecorded(ctx, workspaceID, nil)
	}
	proc, ok := p.sys.find(p.owner, workspaceID, rec.Process)
	if !ok {
		// Only once nothing writes any more is the output complete.
		err := p.clear(workspaceID)
		p.deliverRest(rec, out)
		return Recovered{Lost: []Lost{{Ref: rec.ref(), Established: rec.Established}}}, err
	}
	if err := spec.check(); err != nil {
		return Recovered{}, err
	}
	instance, err := p.adopt(rec, spec, proc, out)
	if err != nil {
		return Recovered{}, err
	}
	return Recovered{Adopted: []*Instance{instance}}, nil
}

// deliverRest delivers what a process wrote before it ended while no server ran.
func (p *Process) deliverRest(rec record, out func(Line)) {
	f, err := openFollower(rec.Dir, false, &sink{out: out})
	if err == nil {
		err = errors.Join(f.drain(), f.close())
	}
	if err != nil {
		p.log.Warn("the last output of a workspace cannot be read", zap.String("workspace", rec.WorkspaceName), zap.Error(err))
	}
}

// clearUnknown ends the processes of workspaces that nobody knows: a server died before it could record them.
func (p *Process) clearUnknown(ctx context.Context) error {
	ids, err := p.sys.marked(p.owner)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		errs = append(errs, func() error {
			unlock, err := p.locks.lock(ctx, id)
			if err != nil {
				return err
			}
			defer unlock()
			if p.instance(id) != nil || !workspaceIDRE.MatchString(id) {
				return nil
			}
			p.log.Warn("processes of an unknown workspace are ended", zap.String("workspace_id", id))
			return p.clear(id)
		}())
	}
	return errors.Join(errs...)
}
