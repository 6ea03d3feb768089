package store

import (
	"slices"
	"sync"
)

// Subscription tells of changes of keys of a Cache. Changes that come before the
// last ones were taken are merged, so a slow subscriber holds nobody up and
// misses no key, only intermediate values:
//
//	sub := cache.Subscribe("a", "b")
//	defer sub.Close()
//	use(cache.Get("a"), cache.Get("b")) // after subscribing: nothing is lost between the two
//	for range sub.C {
//		for _, key := range sub.Take() {
//			use(cache.Get(key))
//		}
//	}
type Subscription struct {
	// C receives when there is something to take. It is closed when the cache or
	// the subscription is; what was not taken by then still can be.
	C <-chan struct{}

	c      chan struct{}
	remove func()

	mu      sync.Mutex
	changed map[string]struct{}
	ended   bool
}

// Subscribe returns a subscription to some keys, which need not exist yet.
func (c *Cache[T]) Subscribe(keys ...string) *Subscription {
	keys = slices.Clone(keys)
	s := newSubscription()
	s.remove = func() {
		for _, key := range keys {
			delete(c.byKey[key], s)
			if len(c.byKey[key]) == 0 {
				delete(c.byKey, key)
			}
		}
	}
	return c.subscribe(s, func() {
		for _, key := range keys {
			if c.byKey[key] == nil {
				c.byKey[key] = make(map[*Subscription]struct{})
			}
			c.byKey[key][s] = struct{}{}
		}
	})
}

// SubscribeAll returns a subscription to all keys, new ones included.
func (c *Cache[T]) SubscribeAll() *Subscription {
	s := newSubscription()
	s.remove = func() { delete(c.all, s) }
	return c.subscribe(s, func() { c.all[s] = struct{}{} })
}

// subscribe runs add under the lock, and makes s.remove do so.
func (c *Cache[T]) subscribe(s *Subscription, add func()) *Subscription {
	remove := s.remove
	s.remove = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		remove()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		s.end()
		return s
	}
	add()
	return s
}

func newSubscription() *Subscription {
	c := make(chan struct{}, 1)
	return &Subscription{C: c, c: c, changed: make(map[string]struct{})}
}

// Take returns the keys that were written or deleted since the last Take, in no
// particular order, each once.
func (s *Subscription) Take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.changed) == 0 {
		return nil
	}
	keys := make([]string, 0, len(s.changed))
	for key := range s.changed {
		keys = append(keys, key)
	}
	clear(s.changed)
	return keys
}

// Close ends the subscription. It is safe to call twice.
func (s *Subscription) Close() {
	s.remove()
	s.end()
}

func (s *Subscription) notify(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.changed[key] = struct{}{}
	nudge(s.c)
}

func (s *Subscription) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.ended = true
		close(s.c)
	}
}
