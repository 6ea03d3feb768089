package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func openCache(t testing.TB, b *Bucket[doc]) *Cache[doc] {
	t.Helper()
	c, err := NewCache(testContext(t), b)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// put creates or replaces a value and returns its revision.
func put(t testing.TB, b *Bucket[doc], key string, count int) uint64 {
	t.Helper()
	e, err := b.Create(testContext(t), key, doc{Count: count})
	if err != nil {
		require.ErrorIs(t, err, ErrExists)
		e, err = b.Mutate(testContext(t), key, func(d *doc) error { d.Count = count; return nil })
		require.NoError(t, err)
	}
	return e.Revision
}

func remove(t testing.TB, b *Bucket[doc], key string) uint64 {
	t.Helper()
	e, err := b.Get(testContext(t), key)
	require.NoError(t, err)
	revision, err := b.Delete(testContext(t), key, e.Revision)
	require.NoError(t, err)
	return revision
}

func TestACacheShowsTheBucket(t *testing.T) {
	b := openDocs(t, openTest(t, Options{}), "b")
	put(t, b, "a", 1)
	put(t, b, "b", 2)
	remove(t, b, "b")
	c := openCache(t, b)
	e, ok := c.Get("a")
	require.True(t, ok)
	fromBucket, err := b.Get(testContext(t), "a")
	require.NoError(t, err)
	require.Equal(t, fromBucket, e)
	_, ok = c.Get("b")
	require.False(t, ok)

	revision := put(t, b, "c", 3)
	require.NoError(t, c.WaitRevision(testContext(t), revision))
	require.GreaterOrEqual(t, c.Revision(), revision)
	list := c.List()
	require.Len(t, list, 2)
	require.Equal(t, "a", list[0].Key)
	require.Equal(t, "c", list[1].Key)

	require.NoError(t, c.WaitRevision(testContext(t), remove(t, b, "a")))
	_, ok = c.Get("a")
	require.False(t, ok)
}

func TestSubscriptionsMergeChangesAndLoseNoKey(t *testing.T) {
	b := openDocs(t, openTest(t, Options{}), "b")
	c := openCache(t, b)
	all, some, none := c.SubscribeAll(), c.Subscribe("k1", "k2", "k1", "missing"), c.Subscribe("missing")
	var revision uint64
	for range 3 {
		for i := range 500 {
			revision = put(t, b, fmt.Sprintf("k%d", i), i)
		}
	}
	require.NoError(t, c.WaitRevision(testContext(t), revision))
	wait(t, all.C)
	wait(t, some.C)
	require.Empty(t, none.C)
	require.Len(t, all.Take(), 500)
	require.ElementsMatch(t, []string{"k1", "k2"}, some.Take())
	require.Empty(t, none.Take())
	require.Empty(t, all.Take(), "what was taken is taken")

	require.NoError(t, c.WaitRevision(testContext(t), remove(t, b, "k2")))
	wait(t, some.C)
	require.Equal(t, []string{"k2"}, some.Take(), "a deletion is a change")

	some.Close()
	some.Close()
	_, open := <-some.C
	require.False(t, open)
	require.NoError(t, c.WaitRevision(testContext(t), put(t, b, "k2", 1)))
	require.Empty(t, some.Take())
	require.Equal(t, []string{"k2"}, all.Take())
	require.Empty(t, c.byKey["k2"])
	require.Contains(t, c.byKey, "missing")
}

func TestAThousandSubscribersCostOneWatch(t *testing.T) {
	s := openTest(t, Options{})
	b := openDocs(t, s, "b")
	c := openCache(t, b)
	require.NoError(t, c.WaitRevision(testContext(t), put(t, b, "k", 1)))
	var wg sync.WaitGroup
	for range 1000 {
		sub := c.Subscribe("k")
		wg.Go(func() {
			for range sub.C {
				if slices.Contains(sub.Take(), "k") {
					sub.Close()
				}
			}
		})
	}
	put(t, b, "k", 2)
	wg.Wait()
	info, err := b.stream.Info(testContext(t))
	require.NoError(t, err)
	require.Equal(t, 1, info.State.Consumers)
	c.Close()
	require.Eventually(t, func() bool { // the server ends the watch in its own time
		info, err := b.stream.Info(testContext(t))
		return err == nil && info.State.Consumers == 0
	}, patience, time.Millisecond)
}

func TestACacheEndsWithItsStore(t *testing.T) {
	s := openTest(t, Options{})
	b := openDocs(t, s, "b")
	put(t, b, "k", 1)
	c, err := NewCache(testContext(t), b)
	require.NoError(t, err)
	all, one := c.SubscribeAll(), c.Subscribe("k")
	waiting := make(chan error, 1)
	go func() { waiting <- c.WaitRevision(testContext(t), 1_000_000) }()
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-waiting, ErrClosed)
	for _, sub := range []*Subscription{all, one, c.Subscribe("k"), c.SubscribeAll()} {
		_, open := <-sub.C
		require.False(t, open)
		sub.Close()
	}
	_, ok := c.Get("k")
	require.True(t, ok, "what it knew can still be read")
	c.Close()
}

func TestWaitRevisionRespectsItsContext(t *testing.T) {
	c := openCache(t, openDocs(t, openTest(t, Options{}), "b"))
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	require.ErrorIs(t, c.WaitRevision(ctx, 7), context.Canceled)
}

func TestAValueThatCannotBeDecodedIsLeftOutOfACache(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	b := openDocs(t, openTest(t, Options{Logger: zap.New(core), Dir: t.TempDir()}), "b")
	put(t, b, "k", 1)
	c := openCache(t, b)
	sub := c.Subscribe("k")
	revision, err := b.kv.Put(testContext(t), "k", []byte("?"))
	require.NoError(t, err)
	require.NoError(t, c.WaitRevision(testContext(t), revision))
	_, ok := c.Get("k")
	require.False(t, ok)
	require.Equal(t, []string{"k"}, sub.Take())
	require.Equal(t, 1, logs.FilterMessage("value left out of the cache").Len())
}

func TestAWatchThatDiesUnnoticedIsReplaced(t *testing.T) {
	s := openTest(t, Options{})
	s.checkEvery = 10 * time.Millisecond
	b := openDocs(t, s, "b")
	c := openCache(t, b)
	sub := c.SubscribeAll()
	require.NoError(t, c.WaitRevision(testContext(t), put(t, b, "a", 1)))
	for range 3 {
		for name := range b.stream.ConsumerNames(testContext(t)).Name() {
			require.NoError(t, b.stream.DeleteConsumer(testContext(t), name))
		}
		sub.Take()
		put(t, b, "b", 1)
		require.NoError(t, c.WaitRevision(testContext(t), remove(t, b, "b")))
		require.NoError(t, c.WaitRevision(testContext(t), put(t, b, "c", 1)))
		require.Contains(t, sub.Take(), "c")
		require.NoError(t, c.WaitRevision(testContext(t), remove(t, b, "c")))
		require.Len(t, c.List(), 1)
	}
}
