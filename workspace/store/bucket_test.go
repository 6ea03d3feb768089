package store

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

func TestBucketOperations(t *testing.T) {
	s := openTest(t, Options{})
	ctx := testContext(t)
	n := 0
	for name, run := range map[string]func(t *testing.T, b *Bucket[doc]){
		"a created value is read back with its revision and time": func(t *testing.T, b *Bucket[doc]) {
			before := time.Now().Add(-time.Second)
			made, err := b.Create(ctx, "k", doc{Name: "a", Tags: map[string]string{"x": "<&>"}})
			require.NoError(t, err)
			got, err := b.Get(ctx, "k")
			require.NoError(t, err)
			require.WithinRange(t, got.Modified, before, time.Now().Add(time.Second))
			got.Modified = time.Time{}
			require.Equal(t, made, got)
			require.NotZero(t, got.Revision)
		},
		"what is not there is not found": func(t *testing.T, b *Bucket[doc]) {
			_, err := b.Get(ctx, "k")
			require.ErrorIs(t, err, ErrNotFound)
			_, err = b.Update(ctx, "k", doc{}, 1)
			require.ErrorIs(t, err, ErrNotFound)
			_, err = b.Update(ctx, "k", doc{}, 0)
			require.ErrorIs(t, err, ErrNotFound)
			_, err = b.Delete(ctx, "k", 1)
			require.ErrorIs(t, err, ErrNotFound)
			_, err = b.Delete(ctx, "k", 0)
			require.ErrorIs(t, err, ErrNotFound)
			_, err = b.Mutate(ctx, "k", func(*doc) error { return nil })
			require.ErrorIs(t, err, ErrNotFound)
			list, err := b.List(ctx)
			require.NoError(t, err)
			require.Empty(t, list)
		},
		"a second create is refused and names operation, bucket and key": func(t *testing.T, b *Bucket[doc]) {
			_, err := b.Create(ctx, "k", doc{})
			require.NoError(t, err)
			_, err = b.Create(ctx, "k", doc{})
			require.ErrorIs(t, err, ErrExists)
			var key *KeyError
			require.ErrorAs(t, err, &key)
			require.Equal(t, KeyError{Op: "create", Bucket: b.name, Key: "k", Err: ErrExists}, *key)
			require.EqualError(t, err, "create "+b.name+"/k: already exists")
		},
		"only the current revision can be updated or deleted": func(t *testing.T, b *Bucket[doc]) {
			first, err := b.Create(ctx, "k", doc{Count: 1})
			require.NoError(t, err)
			second, err := b.Update(ctx, "k", doc{Count: 2}, first.Revision)
			require.NoError(t, err)
			require.Greater(t, second.Revision, first.Revision)
			for _, stale := range []uint64{0, first.Revision, second.Revision + 1} {
				_, err = b.Update(ctx, "k", doc{Count: 3}, stale)
				require.ErrorIs(t, err, ErrConflict)
				_, err = b.Delete(ctx, "k", stale)
				require.ErrorIs(t, err, ErrConflict)
			}
			got, err := b.Get(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, 2, got.Value.Count)
		},
		"a deleted key is gone and can be created again": func(t *testing.T, b *Bucket[doc]) {
			for range 3 {
				made, err := b.Create(ctx, "k", doc{})
				require.NoError(t, err)
				deleted, err := b.Delete(ctx, "k", made.Revision)
				require.NoError(t, err)
				require.Greater(t, deleted, made.Revision)
				_, err = b.Get(ctx, "k")
				require.ErrorIs(t, err, ErrNotFound)
				_, err = b.Delete(ctx, "k", made.Revision)
				require.ErrorIs(t, err, ErrNotFound)
			}
		},
		"a key whose mark of deletion has expired can be created again": func(t *testing.T, b *Bucket[doc]) {
			made, err := b.Create(ctx, "k", doc{})
			require.NoError(t, err)
			_, err = b.Delete(ctx, "k", made.Revision)
			require.NoError(t, err)
			require.NoError(t, b.stream.Purge(ctx))
			_, err = b.Update(ctx, "k", doc{}, made.Revision)
			require.ErrorIs(t, err, ErrNotFound)
			_, err = b.Create(ctx, "k", doc{})
			require.NoError(t, err)
		},
		"a list is ordered by key": func(t *testing.T, b *Bucket[doc]) {
			for _, key := range []string{"b", "c", "a.z", "a"} {
				_, err := b.Create(ctx, key, doc{Name: key})
				require.NoError(t, err)
			}
			list, err := b.List(ctx)
			require.NoError(t, err)
			var keys []string
			for _, e := range list {
				require.Equal(t, e.Key, e.Value.Name)
				keys = append(keys, e.Key)
			}
			require.Equal(t, []string{"a", "a.z", "b", "c"}, keys)
		},
		"mutate returns what it wrote": func(t *testing.T, b *Bucket[doc]) {
			made, err := b.Create(ctx, "k", doc{Count: 1})
			require.NoError(t, err)
			e, err := b.Mutate(ctx, "k", func(d *doc) error { d.Count++; return nil })
			require.NoError(t, err)
			require.Equal(t, 2, e.Value.Count)
			require.Greater(t, e.Revision, made.Revision)
			got, err := b.Get(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, e.Revision, got.Revision)
		},
		"mutate that changes nothing writes nothing": func(t *testing.T, b *Bucket[doc]) {
			made, err := b.Create(ctx, "k", doc{Count: 1})
			require.NoError(t, err)
			e, err := b.Mutate(ctx, "k", func(d *doc) error { d.Count = 1; return nil })
			require.NoError(t, err)
			require.Equal(t, made.Revision, e.Revision)
		},
		"mutate passes on the error of its function, even one of ours": func(t *testing.T, b *Bucket[doc]) {
			_, err := b.Create(ctx, "k", doc{Count: 1})
			require.NoError(t, err)
			for _, refusal := range []error{errors.New("no"), ErrConflict} {
				calls := 0
				_, err = b.Mutate(ctx, "k", func(d *doc) error { calls++; d.Count = 9; return refusal })
				require.ErrorIs(t, err, refusal)
				require.Equal(t, 1, calls)
			}
			got, err := b.Get(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, 1, got.Value.Count)
		},
		"mutate that always loses gives up": func(t *testing.T, b *Bucket[doc]) {
			_, err := b.Create(ctx, "k", doc{})
			require.NoError(t, err)
			calls := 0
			_, err = b.Mutate(ctx, "k", func(d *doc) error {
				calls++
				_, err := b.Mutate(ctx, "k", func(d *doc) error { d.Count++; return nil })
				d.Name = "never"
				return err
			})
			require.ErrorIs(t, err, ErrConflict)
			require.Equal(t, maxTries, calls)
		},
		"a value may be as large as the limit and no larger": func(t *testing.T, b *Bucket[doc]) {
			overhead := len(`{"name":"","count":0}`)
			_, err := b.Create(ctx, "k", doc{Name: strings.Repeat("x", MaxValueSize-overhead)})
			require.NoError(t, err)
			_, err = b.Create(ctx, "l", doc{Name: strings.Repeat("x", MaxValueSize-overhead+1)})
			require.ErrorIs(t, err, ErrTooLarge)
			_, err = b.Mutate(ctx, "k", func(d *doc) error { d.Name += "x"; return nil })
			require.ErrorIs(t, err, ErrTooLarge)
		},
		"a value of another shape is reported as corrupt, not as absent": func(t *testing.T, b *Bucket[doc]) {
			_, err := b.kv.Put(ctx, "k", []byte(`{"count":"many"}`))
			require.NoError(t, err)
			_, err = b.Get(ctx, "k")
			require.ErrorIs(t, err, ErrCorrupt)
			_, err = b.Mutate(ctx, "k", func(*doc) error { return nil })
			require.ErrorIs(t, err, ErrCorrupt)
			_, err = b.List(ctx)
			require.ErrorIs(t, err, ErrCorrupt)
			_, err = NewCache(ctx, b)
			require.ErrorIs(t, err, ErrCorrupt)
			require.ErrorContains(t, err, b.name+"/k is damaged")
		},
		"a key deleted by other tools of the same convention is gone": func(t *testing.T, b *Bucket[doc]) {
			_, err := b.Create(ctx, "k", doc{})
			require.NoError(t, err)
			require.NoError(t, b.kv.Delete(ctx, "k"))
			_, err = b.Get(ctx, "k")
			require.ErrorIs(t, err, ErrNotFound)
			list, err := b.List(ctx)
			require.NoError(t, err)
			require.Empty(t, list)
		},
		"invalid keys are refused by every operation": func(t *testing.T, b *Bucket[doc]) {
			_, get := b.Get(ctx, "a b")
			_, create := b.Create(ctx, "*", doc{})
			_, update := b.Update(ctx, ">", doc{}, 1)
			_, del := b.Delete(ctx, "", 1)
			_, mutate := b.Mutate(ctx, "a..b", func(*doc) error { return nil })
			for _, err := range []error{get, create, update, del, mutate} {
				require.ErrorIs(t, err, ErrInvalidName)
			}
		},
	} {
		n++
		b := openDocs(t, s, fmt.Sprintf("b%d", n))
		t.Run(name, func(t *testing.T) { run(t, b) })
	}
}

func TestConcurrentMutationsAreAllCounted(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	b := openDocs(t, s, "b")
	_, err := b.Create(testContext(t), "k", doc{})
	require.NoError(t, err)
	const writers, times = 16, 25
	errs := make(chan error, writers*times)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range times {
				_, err := b.Mutate(testContext(t), "k", func(d *doc) error { d.Count++; return nil })
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	e, err := b.Get(testContext(t), "k")
	require.NoError(t, err)
	require.Equal(t, writers*times, e.Value.Count)
}

func TestOfManyCreatorsOneWins(t *testing.T) {
	s := openTest(t, Options{})
	b := openDocs(t, s, "b")
	made, err := b.Create(testContext(t), "k", doc{})
	require.NoError(t, err)
	_, err = b.Delete(testContext(t), "k", made.Revision)
	require.NoError(t, err)
	results := make(chan error, 20)
	for i := range cap(results) {
		go func() {
			_, err := b.Create(testContext(t), "k", doc{Count: i})
			results <- err
		}()
	}
	won := 0
	for range cap(results) {
		if err := <-results; err == nil {
			won++
		} else {
			require.ErrorIs(t, err, ErrExists)
		}
	}
	require.Equal(t, 1, won)
}

func TestAListLongerThanOneRoundTripIsCompleteWhileKeysChange(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	b := openDocs(t, s, "b")
	const keys = 2*listBatch + 7
	revisions := make([]uint64, keys)
	for i := range keys {
		e, err := b.Create(testContext(t), fmt.Sprintf("k%d", i), doc{Name: strings.Repeat("x", 900)})
		require.NoError(t, err)
		revisions[i] = e.Revision
	}
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i = (i + 1) % keys {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			e, err := b.Update(testContext(t), fmt.Sprintf("k%d", i), doc{Count: 1}, revisions[i])
			if err != nil {
				stopped <- err
				return
			}
			revisions[i] = e.Revision
		}
	}()
	for range 5 {
		list, err := b.List(testContext(t))
		require.NoError(t, err)
		require.Len(t, list, keys)
	}
	close(stop)
	require.NoError(t, <-stopped)
}

func TestABucketOfAnotherFormatIsRefused(t *testing.T) {
	s := openTest(t, Options{})
	openDocs(t, s, "b")
	stream, err := s.js.Stream(testContext(t), kvStream("b"))
	require.NoError(t, err)
	config := stream.CachedInfo().Config
	config.Metadata = map[string]string{formatKey: "2"}
	_, err = s.js.UpdateStream(testContext(t), config)
	require.NoError(t, err)
	_, err = OpenBucket[doc](testContext(t), s, "b")
	require.ErrorIs(t, err, ErrIncompatible)
	require.ErrorContains(t, err, "stream KV_b has store format 2, this version works with format 1")
}

func TestNamesAreChecked(t *testing.T) {
	for name, valid := range map[string]bool{
		"a": true, "a.b": true, "a/b=c-d_e.9": true, strings.Repeat("x", MaxKeyLen): true, "_k": true,
		"": false, ".": false, "a.": false, ".a": false, "a..b": false, "a b": false, "*": false, "a.>": false,
		"a\n": false, "ä": false, "_kv": false, "_kv.a": false, strings.Repeat("x", MaxKeyLen+1): false, "a\x80": false,
	} {
		err := ValidateKey(name)
		require.Equal(t, valid, err == nil, "%q: %v", name, err)
		if !valid {
			require.ErrorIs(t, err, ErrInvalidName)
		}
	}
	s := openTest(t, Options{})
	for _, name := range []string{"", "a.b", "a/b", "*", strings.Repeat("x", MaxBucketLen+1)} {
		_, err := OpenBucket[doc](testContext(t), s, name)
		require.ErrorIs(t, err, ErrInvalidName, name)
	}
	_, err := s.Log("a..b")
	require.EqualError(t, err, `invalid log name "a..b": must not have an empty part before, between or after dots`)
}

func TestMarksOfDeletionExpire(t *testing.T) {
	s := openTest(t, Options{})
	b := openDocs(t, s, "b")
	e, err := b.Create(testContext(t), "k", doc{})
	require.NoError(t, err)
	_, err = b.Delete(testContext(t), "k", e.Revision)
	require.NoError(t, err)
	m, ok, err := s.last(testContext(t), b.stream, "$KV.b.k")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, nats.Header{
		headerOperation: {"PURGE"}, "Nats-Rollup": {"sub"}, "Nats-TTL": {"24h0m0s"},
	}, nats.Header{
		headerOperation: m.header[headerOperation], "Nats-Rollup": m.header["Nats-Rollup"], "Nats-TTL": m.header["Nats-TTL"],
	})
	info, err := b.stream.Info(testContext(t))
	require.NoError(t, err)
	require.EqualValues(t, 1, info.State.Msgs, "the value itself is gone")
	require.True(t, info.Config.AllowMsgTTL)
}
