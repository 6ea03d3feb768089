package store

import (
	"context"
	"fmt"
	"sync"
)

// Cache is a local mirror of one bucket, kept up to date by one watch however
// many readers and subscribers it has. It lags behind the bucket by a moment
// (WaitRevision waits that out), and while the connection to an external server
// is lost by as long as that lasts; then it catches up with everything, deletions
// included. It is safe for concurrent use.
//
// Values are shared between all who read them: they must not be changed.
type Cache[T any] struct {
	bucket *Bucket[T]
	resume <-chan struct{} // the connection was lost and is back
	cancel context.CancelFunc
	done   chan struct{} // closed when the feeder has ended

	mu       sync.RWMutex
	entries  map[string]Entry[T]
	revision uint64        // the picture includes every change up to this one
	moved    chan struct{} // closed when revision grows; nil if nobody waits
	closed   bool
	byKey    map[string]map[*Subscription]struct{}
	all      map[*Subscription]struct{}
}

// NewCache returns when the mirror is complete. It ends with Close or with the
// store. A value that cannot be decoded is an error here, so that nobody takes it
// for absent.
func NewCache[T any](ctx context.Context, b *Bucket[T]) (*Cache[T], error) {
	c := &Cache[T]{
		bucket: b,
		done:   make(chan struct{}),
		byKey:  make(map[string]map[*Subscription]struct{}),
		all:    make(map[*Subscription]struct{}),
	}
	var forget func()
	c.resume, forget = b.store.resumed.add(b.name)
	var err error
	if c.entries, c.revision, err = b.snapshot(ctx); err != nil {
		forget()
		return nil, fmt.Errorf("cannot load %s: %w", b.name, err)
	}
	feedCtx, cancel := context.WithCancel(b.store.ctx)
	c.cancel = cancel
	err = b.store.start(func() {
		defer close(c.done)
		defer forget()
		c.feed(feedCtx)
		c.end()
	})
	if err != nil {
		cancel()
		forget()
		return nil, err
	}
	return c, nil
}

// Close ends the watch and all subscriptions, and waits for that. What is in the
// cache can still be read.
func (c *Cache[T]) Close() {
	c.cancel()
	<-c.done
}

// Get returns the value of key and whether there is one.
func (c *Cache[T]) Get(key string) (Entry[T], bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e, ok := c.entries[key]
	return e, ok
}

// List returns all values, ordered by key, as they were at one moment.
func (c *Cache[T]) List() []Entry[T] {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return sortedByKey(c.entries)
}

// Revision returns the revision up to which the cache includes every change.
func (c *Cache[T]) Revision() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.revision
}

// WaitRevision returns when the cache includes the change that has this
// revision: after a write, with the revision that it returned, one reads what one
// has written. It returns ErrClosed if the cache ends first.
func (c *Cache[T]) WaitRevision(ctx context.Context, revision uint64) error {
	for {
		c.mu.Lock()
		if c.revision >= revision {
			c.mu.Unlock()
			return nil
		}
		if c.closed {
			c.mu.Unlock()
			return ErrClosed
		}
		if c.moved == nil {
			c.moved = make(chan struct{})
		}
		moved := c.moved
		c.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("waiting for revision %d of %s: %w", revision, c.bucket.name, ctx.Err())
		}
	}
}

// set takes one change in. A nil entry is a deletion.
func (c *Cache[T]) set(key string, e *Entry[T], revision uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if revision <= c.revision {
		return // a repetition
	}
	c.put(key, e)
	c.advance(revision)
}

// replace takes a whole new picture in and reports what differs as changed.
func (c *Cache[T]) replace(entries map[string]Entry[T], revision uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.entries {
		if _, ok := entries[key]; !ok {
			c.put(key, nil)
		}
	}
	for key, e := range entries {
		if c.entries[key].Revision != e.Revision {
			c.put(key, &e)
		}
	}
	c.advance(revision)
}

// put changes one key of the picture and tells who asked for it. c.mu is held.
func (c *Cache[T]) put(key string, e *Entry[T]) {
	if e != nil {
		c.entries[key] = *e
	} else if _, ok := c.entries[key]; ok {
		delete(c.entries, key)
	} else {
		return
	}
	for s := range c.byKey[key] {
		s.notify(key)
	}
	for s := range c.all {
		s.notify(key)
	}
}

// advance wakes who waits for a revision. c.mu is held.
func (c *Cache[T]) advance(revision uint64) {
	c.revision = max(c.revision, revision)
	if c.moved != nil {
		close(c.moved)
		c.moved = nil
	}
}

// end closes all subscriptions.
func (c *Cache[T]) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.advance(c.revision)
	for s := range c.all {
		s.end()
	}
	for _, subs := range c.byKey {
		for s := range subs {
			s.end()
		}
	}
	c.all, c.byKey = nil, nil
}
