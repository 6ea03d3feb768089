package store

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// bucketModel drives a bucket and a map side by side.
type bucketModel struct {
	b     *Bucket[int]
	model map[string]Entry[int]
	stale map[string]uint64 // a revision that the key had before
	last  uint64            // the newest revision
}

var modelKeys = rapid.SampledFrom([]string{"a", "b", "a.b", "c/d=e"})

// revision draws the current revision of a key, or a wrong one.
func (m *bucketModel) revision(t *rapid.T, key string) uint64 {
	return rapid.SampledFrom([]uint64{m.model[key].Revision, m.model[key].Revision, m.stale[key], m.last + 1, 0}).Draw(t, "revision")
}

// expect returns what an operation that replaces a revision must return.
func (m *bucketModel) expect(key string, revision uint64) error {
	e, ok := m.model[key]
	switch {
	case !ok:
		return ErrNotFound
	case e.Revision != revision:
		return ErrConflict
	}
	return nil
}

func (m *bucketModel) wrote(t require.TestingT, e Entry[int], value int) {
	require.Greater(t, e.Revision, m.last)
	require.Equal(t, value, e.Value)
	m.stale[e.Key], m.last = m.model[e.Key].Revision, e.Revision
	m.model[e.Key] = e
}

func (m *bucketModel) actions(t testing.TB) map[string]func(*rapid.T) {
	ctx := testContext(t)
	return map[string]func(*rapid.T){
		"create": func(t *rapid.T) {
			key, value := modelKeys.Draw(t, "key"), rapid.Int().Draw(t, "value")
			e, err := m.b.Create(ctx, key, value)
			if _, ok := m.model[key]; ok {
				require.ErrorIs(t, err, ErrExists)
				return
			}
			require.NoError(t, err)
			m.wrote(t, e, value)
		},
		"update": func(t *rapid.T) {
			key, value := modelKeys.Draw(t, "key"), rapid.Int().Draw(t, "value")
			revision := m.revision(t, key)
			e, err := m.b.Update(ctx, key, value, revision)
			if want := m.expect(key, revision); want != nil {
				require.ErrorIs(t, err, want)
				return
			}
			require.NoError(t, err)
			m.wrote(t, e, value)
		},
		"delete": func(t *rapid.T) {
			key := modelKeys.Draw(t, "key")
			revision := m.revision(t, key)
			deleted, err := m.b.Delete(ctx, key, revision)
			if want := m.expect(key, revision); want != nil {
				require.ErrorIs(t, err, want)
				return
			}
			require.NoError(t, err)
			require.Greater(t, deleted, m.last)
			m.stale[key], m.last = revision, deleted
			delete(m.model, key)
		},
		"mutate": func(t *rapid.T) {
			key, add := modelKeys.Draw(t, "key"), rapid.IntRange(0, 1).Draw(t, "add")
			refused := errors.New("refused")
			refuse := rapid.Bool().Draw(t, "refuse")
			e, err := m.b.Mutate(ctx, key, func(v *int) error {
				*v += add
				if refuse {
					return refused
				}
				return nil
			})
			before, ok := m.model[key]
			switch {
			case !ok:
				require.ErrorIs(t, err, ErrNotFound)
			case refuse:
				require.ErrorIs(t, err, refused)
			case add == 0:
				require.NoError(t, err)
				require.Equal(t, before.Revision, e.Revision)
			default:
				require.NoError(t, err)
				m.wrote(t, e, before.Value+add)
			}
		},
		"get": func(t *rapid.T) {
			key := modelKeys.Draw(t, "key")
			e, err := m.b.Get(ctx, key)
			want, ok := m.model[key]
			if !ok {
				require.ErrorIs(t, err, ErrNotFound)
				return
			}
			require.NoError(t, err)
			require.Equal(t, want.Value, e.Value)
			require.Equal(t, want.Revision, e.Revision)
		},
		"": func(t *rapid.T) { // after each action
			list, err := m.b.List(ctx)
			require.NoError(t, err)
			m.same(t, list)
		},
	}
}

// same checks a listing, whole, against the model.
func (m *bucketModel) same(t require.TestingT, list []Entry[int]) {
	require.Len(t, list, len(m.model))
	for _, e := range list {
		require.Equal(t, m.model[e.Key].Value, e.Value, e.Key)
		require.Equal(t, m.model[e.Key].Revision, e.Revision, e.Key)
	}
}

// newModel empties the bucket and makes a model of it.
func newModel(ctx context.Context, t require.TestingT, b *Bucket[int]) *bucketModel {
	require.NoError(t, b.stream.Purge(ctx))
	info, err := b.stream.Info(ctx)
	require.NoError(t, err)
	return &bucketModel{b: b, model: make(map[string]Entry[int]), stale: make(map[string]uint64), last: info.State.LastSeq}
}

func TestABucketBehavesLikeAMapWithRevisions(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	b, err := OpenBucket[int](testContext(t), s, "b")
	require.NoError(t, err)
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(testContext(t), rt, b)
		rt.Repeat(m.actions(t))
	})
}

func TestACacheEndsInThePictureThatTheBucketHas(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	b, err := OpenBucket[int](testContext(t), s, "b")
	require.NoError(t, err)
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(testContext(t), rt, b)
		actions := m.actions(t)

		// seen is rebuilt from what subscriptions say, by a reader of its own.
		var cache *Cache[int]
		var sub, one *Subscription
		seen, seenOne := make(map[string]Entry[int]), make(map[string]Entry[int])
		take := func(sub *Subscription, seen map[string]Entry[int]) {
			for _, key := range sub.Take() {
				if e, ok := cache.Get(key); ok {
					seen[key] = e
				} else {
					delete(seen, key)
				}
			}
		}
		actions["start"] = func(rt *rapid.T) {
			if cache != nil {
				rt.Skip("started")
			}
			var err error
			cache, err = NewCache(testContext(t), m.b)
			require.NoError(rt, err)
			sub, one = cache.SubscribeAll(), cache.Subscribe("a", "a.b")
			for _, e := range cache.List() {
				seen[e.Key] = e
			}
			for _, key := range []string{"a", "a.b"} {
				if e, ok := cache.Get(key); ok {
					seenOne[key] = e
				}
			}
		}
		actions["interrupt"] = func(*rapid.T) { s.resumed.wakeAll() }
		actions["take"] = func(rt *rapid.T) {
			if cache == nil {
				rt.Skip("not started")
			}
			take(sub, seen)
			take(one, seenOne)
		}
		actions[""] = func(rt *rapid.T) {
			if cache == nil {
				return
			}
			require.NoError(rt, cache.WaitRevision(testContext(t), m.last))
			m.same(rt, cache.List())
		}
		rt.Repeat(actions)

		if cache == nil {
			return
		}
		defer cache.Close()
		require.NoError(rt, cache.WaitRevision(testContext(t), m.last))
		take(sub, seen)
		take(one, seenOne)
		require.Len(rt, seen, len(m.model))
		for key, e := range seen {
			require.Equal(rt, m.model[key].Revision, e.Revision)
		}
		for _, key := range []string{"a", "a.b"} {
			require.Equal(rt, m.model[key].Revision, seenOne[key].Revision, key)
			delete(seenOne, key)
		}
		require.Empty(rt, seenOne, "only the keys that were asked for")
	})
}
