package coordinator

import (
	"context"
	"errors"
	"fmt"

	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/store"
)

// requestBuild makes the next build of a workspace, as record.requestBuild says.
func (g *registry) requestBuild(ctx context.Context, id string, in api.CreateBuild, by string) (_ record, created bool, err error) {
	for {
		rec, _, err := g.get(ctx, id)
		if err != nil {
			return record{}, false, err
		}
		// The newest build is only in the record: it is put aside before another
		// takes its place. It has ended, so that it will not change.
		var aside int64
		if b := rec.Build; b.Number > 0 && b.Status.Final() {
			aside = b.Number
			_, err := g.history.Create(ctx, buildKey(id, b.Number), b.Build)
			if err != nil && !errors.Is(err, store.ErrExists) {
				return record{}, false, storeError(err)
			}
		}
		e, err := g.records.Mutate(ctx, id, func(r *record) (err error) {
			replaced := r.Build.Number
			created, err = r.requestBuild(in, by, g.node, now())
			if err == nil && created && replaced != aside {
				return errRetry // it has ended, or was made, only just now
			}
			return err
		})
		if errors.Is(err, errRetry) {
			continue
		}
		if err != nil {
			return record{}, false, storeError(err)
		}
		g.settle(ctx, e.Revision)
		return e.Value, created, nil
	}
}

func buildKey(id string, number int64) string { return fmt.Sprintf("%s.%d", id, number) }

// build gives one build of a workspace, or errNoBuild.
func (g *registry) build(ctx context.Context, rec record, number int64) (api.Build, error) {
	switch {
	case number == rec.Build.Number && number > 0:
		return rec.Build.Build, nil
	case number < 1 || number > rec.Build.Number:
		return api.Build{}, errNoBuild
	}
	e, err := g.history.Get(ctx, buildKey(rec.ID, number))
	if errors.Is(err, store.ErrNotFound) {
		return api.Build{}, errNoBuild
	}
	return e.Value, storeError(err)
}

// builds lists up to limit builds with a number below before, 0 for no bound,
// newest first.
func (g *registry) builds(ctx context.Context, rec record, before int64, limit int) (api.BuildList, error) {
	out := api.BuildList{Builds: []api.Build{}}
	number := rec.Build.Number
	if before > 0 {
		number = min(number, before-1)
	}
	for ; number > 0; number-- {
		if len(out.Builds) == limit {
			out.More = true
			break
		}
		b, err := g.build(ctx, rec, number)
		switch {
		case errors.Is(err, errNoBuild):
			return out, nil // it is kept no longer, nor are older ones
		case err != nil:
			return api.BuildList{}, err
		}
		out.Builds = append(out.Builds, b)
	}
	return out, nil
}
