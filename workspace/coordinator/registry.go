package coordinator

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"

	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/store"
	"github.com/tunneler/tunneler/workspace/template"
)

// The buckets of the store.
const (
	bucketWorkspaces = "workspaces" // id: record
	bucketNames      = "names"      // name: id; says whose the name is as long as that workspace is not deleted
	bucketBuilds     = "builds"     // id.number: a build that another one has followed
)

// idPrefix begins the id of every workspace. It has a character that no name
// has, so that the two cannot be taken for each other.
const idPrefix = "ws_"

var (
	idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

	errNoBuild = errors.New("no such build")
	errRetry   = errors.New("the record has changed")
	// errUnchanged leaves a record as it is.
	errUnchanged = errors.New("nothing to change")
)

// registry is the records in the store, and a mirror of them that all who watch
// share.
type registry struct {
	records *store.Bucket[record]
	names   *store.Bucket[string]
	history *store.Bucket[api.Build]
	cache   *store.Cache[record]
	node    string
}

func openRegistry(ctx context.Context, s *store.Store, node string) (*registry, error) {
	g := &registry{node: node}
	var err error
	if g.records, err = store.OpenBucket[record](ctx, s, bucketWorkspaces); err != nil {
		return nil, err
	}
	if g.names, err = store.OpenBucket[string](ctx, s, bucketNames); err != nil {
		return nil, err
	}
	if g.history, err = store.OpenBucket[api.Build](ctx, s, bucketBuilds); err != nil {
		return nil, err
	}
	g.cache, err = store.NewCache(ctx, g.records)
	return g, err
}

// list gives the workspaces that are not deleted.
func (g *registry) list() []record {
	var live []record
	for _, e := range g.cache.List() {
		if !e.Value.deleted() {
			live = append(live, e.Value)
		}
	}
	return live
}

// cached gives a record as the mirror has it.
func (g *registry) cached(id string) (record, bool) {
	e, ok := g.cache.Get(id)
	return e.Value, ok
}

// get gives a record as the store has it, with its revision.
func (g *registry) get(ctx context.Context, id string) (record, uint64, error) {
	e, err := g.records.Get(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return record{}, 0, notFound("workspace", id, nil)
	}
	return e.Value, e.Revision, storeError(err)
}

// resolve finds the workspace that ref, an id or a name, stands for. A deleted
// one is not found.
func (g *registry) resolve(ctx context.Context, ref string) (record, uint64, error) {
	rec, revision, err := g.find(ctx, ref)
	if err == nil && rec.deleted() {
		return record{}, 0, g.noWorkspace(ref)
	}
	return rec, revision, err
}

// find is resolve for those who only look: by its id, a deleted workspace is
// found for as long as its records are kept.
func (g *registry) find(ctx context.Context, ref string) (record, uint64, error) {
	id := ref
	if !strings.HasPrefix(ref, idPrefix) {
		if api.CheckName(ref) != nil {
			return record{}, 0, g.noWorkspace(ref)
		}
		e, err := g.names.Get(ctx, ref)
		if errors.Is(err, store.ErrNotFound) {
			return record{}, 0, g.noWorkspace(ref)
		}
		if err != nil {
			return record{}, 0, storeError(err)
		}
		id = e.Value
	}
	if store.ValidateKey(id) != nil {
		return record{}, 0, g.noWorkspace(ref)
	}
	e, err := g.records.Get(ctx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && e.Value.deleted() && id != ref {
		return record{}, 0, g.noWorkspace(ref)
	}
	return e.Value, e.Revision, storeError(err)
}

func (g *registry) noWorkspace(ref string) *api.Error {
	var names []string
	for _, r := range g.list() {
		names = append(names, r.Name)
	}
	return notFound("workspace", ref, names)
}

// create makes a workspace.
//
// The name is reserved first, with the id that its workspace will have. A crash
// right after that leaves a reservation without a workspace: whoever asks for
// the name next makes that very workspace, and of two who do, one succeeds.
func (g *registry) create(ctx context.Context, name string, t template.Template, by string) (record, error) {
	id, err := g.reserve(ctx, name)
	if err != nil {
		return record{}, err
	}
	rec := newRecord(id, name, t, by, now())
	e, err := g.records.Create(ctx, id, rec)
	if errors.Is(err, store.ErrExists) {
		return record{}, nameTaken(name)
	}
	if err != nil {
		return record{}, storeError(err)
	}
	g.settle(ctx, e.Revision)
	return rec, nil
}

// reserve gives the id under which the workspace of that name is to be made.
func (g *registry) reserve(ctx context.Context, name string) (string, error) {
	fresh := idPrefix + newID()
	for {
		_, err := g.names.Create(ctx, name, fresh)
		if !errors.Is(err, store.ErrExists) {
			return fresh, storeError(err)
		}
		held, err := g.names.Get(ctx, name)
		if errors.Is(err, store.ErrNotFound) {
			continue // freed in this moment
		}
		if err != nil {
			return "", storeError(err)
		}
		owner, err := g.records.Get(ctx, held.Value)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return held.Value, nil
		case err != nil:
			return "", storeError(err)
		case !owner.Value.deleted():
			return "", nameTaken(name)
		}
		_, err = g.names.Update(ctx, name, fresh, held.Revision)
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNotFound) {
			return fresh, storeError(err)
		}
	}
}

func nameTaken(name string) *api.Error {
	return &api.Error{Code: api.CodeExists, Message: fmt.Sprintf("there is a workspace %s already", name), Hint: "choose another name"}
}

// free gives the name of a deleted workspace back. It may be done again.
func (g *registry) free(ctx context.Context, r *record) error {
	held, err := g.names.Get(ctx, r.Name)
	if errors.Is(err, store.ErrNotFound) || err == nil && held.Value != r.ID {
		return nil
	}
	if err != nil {
		return storeError(err)
	}
	_, err = g.names.Delete(ctx, r.Name, held.Revision)
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
		return nil // somebody else has taken it over
	}
	return storeError(err)
}

// change applies f to a record, again if somebody else was faster. It returns
// the record as it is then, and when the mirror has it.
func (g *registry) change(ctx context.Context, id string, f func(*record) error) (record, error) {
	e, err := g.records.Mutate(ctx, id, f)
	if errors.Is(err, store.ErrNotFound) {
		return record{}, notFound("workspace", id, nil)
	}
	if err != nil {
		return record{}, storeError(err)
	}
	g.settle(ctx, e.Revision)
	return e.Value, nil
}

// settle waits until the mirror has a change that was made, so that who made it
// sees it in a list. The change is stored in any case.
func (g *registry) settle(ctx context.Context, revision uint64) {
	_ = g.cache.WaitRevision(ctx, revision)
}

// erase removes a record with its builds. It does nothing if the record has
// changed.
func (g *registry) erase(ctx context.Context, r *record, revision uint64) error {
	for number := int64(1); number < r.Build.Number; number++ {
		e, err := g.history.Get(ctx, buildKey(r.ID, number))
		if err == nil {
			_, err = g.history.Delete(ctx, e.Key, e.Revision)
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return storeError(err)
		}
	}
	_, err := g.records.Delete(ctx, r.ID, revision)
	return storeError(err)
}

// newID is 80 random bits.
func newID() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // never fails
	return idEncoding.EncodeToString(b[:])
}

// unreachableError says that the store did not do what it was asked to, and
// that it may be asked again.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string { return e.err.Error() }
func (e *unreachableError) Unwrap() error { return e.err }

// storeError sorts an error of the store: what a caller of this package or the
// data itself brought about stays as it is, the rest makes the store
// unreachable.
func storeError(err error) error {
	if err == nil {
		return nil
	}
	if e := (*api.Error)(nil); errors.As(err, &e) {
		return e
	}
	for _, own := range []error{errUnchanged, errRetry, store.ErrCorrupt, store.ErrInvalidName, store.ErrTooLarge, store.ErrIncompatible} {
		if errors.Is(err, own) {
			return err
		}
	}
	return &unreachableError{err}
}

// unavailable reports whether err says that the store is out of reach.
func unavailable(err error) bool {
	var u *unreachableError
	return errors.As(err, &u)
}
