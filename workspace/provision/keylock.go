package provision

import (
	"context"
	"sync"
)

// A keyLock is a mutex for each key, whose waiters give up when their context is done. Its zero value is ready for use.
type keyLock struct {
	mu    sync.Mutex
	locks map[string]*countedLock
}

type countedLock struct {
	held  chan struct{}
	users int
}

// lock waits for the key's mutex and returns what unlocks it.
func (k *keyLock) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = make(map[string]*countedLock)
	}
	l := k.locks[key]
	if l == nil {
		l = &countedLock{held: make(chan struct{}, 1)}
		k.locks[key] = l
	}
	l.users++
	k.mu.Unlock()

	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.locks, key)
		}
	}
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
