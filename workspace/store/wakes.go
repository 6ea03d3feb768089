package store

import "sync"

// wakes tells any number of waiters, by name, that there is something to look
// at. A wake is never lost and never blocks: each waiter has room for one, and
// one is enough to look again.
type wakes struct {
	mu      sync.Mutex
	waiters map[string]map[chan struct{}]struct{}
}

func newWakes() *wakes {
	return &wakes{waiters: make(map[string]map[chan struct{}]struct{})}
}

// add registers a waiter. It must look for itself once after add and before it
// waits. remove ends it.
func (w *wakes) add(name string) (wake <-chan struct{}, remove func()) {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiters[name] == nil {
		w.waiters[name] = make(map[chan struct{}]struct{})
	}
	w.waiters[name][ch] = struct{}{}
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.waiters[name], ch)
		if len(w.waiters[name]) == 0 {
			delete(w.waiters, name)
		}
	}
}

func (w *wakes) wake(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.waiters[name] {
		nudge(ch)
	}
}

func (w *wakes) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, waiters := range w.waiters {
		for ch := range waiters {
			nudge(ch)
		}
	}
}

// nudge fills a channel of capacity one.
func nudge(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
