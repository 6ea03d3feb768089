package coordinator

import (
	"context"
	"sync"

	"github.com/tunneler/tunneler/workspace/store"
)

// logBell tells any number of watches that a log has grown, at the price of
// one Follow for each log that anybody waits for.
type logBell struct {
	life  context.Context //nolint:containedctx // it ends with the coordinator
	wg    *sync.WaitGroup
	store *store.Store

	mu    sync.Mutex
	bells map[string]*bell
}

type bell struct {
	cancel context.CancelFunc
	ears   map[chan struct{}]struct{}
}

// listen returns a channel that receives when the log of that name may have
// grown; who listens must look once after this and before it waits. stop ends
// it.
func (b *logBell) listen(name string) (grown <-chan struct{}, stop func(), err error) {
	log, err := b.store.Log(name)
	if err != nil {
		return nil, nil, err
	}
	ear := make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.bells[name]
	if one == nil {
		ctx, cancel := context.WithCancel(b.life)
		one = &bell{cancel: cancel, ears: make(map[chan struct{}]struct{})}
		b.bells[name] = one
		b.wg.Go(func() { b.follow(ctx, one, log) })
	}
	one.ears[ear] = struct{}{}
	return ear, func() { b.leave(name, one, ear) }, nil
}

func (b *logBell) leave(name string, one *bell, ear chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(one.ears, ear)
	if len(one.ears) == 0 {
		one.cancel()
		if b.bells[name] == one {
			delete(b.bells, name)
		}
	}
}

// follow rings for each line; rings that nobody has heard yet are one.
func (b *logBell) follow(ctx context.Context, one *bell, log *store.Log) {
	var after int64
	last, ok, err := log.Last(ctx)
	if err == nil && ok {
		after = last.ID
	}
	b.ring(one) // what has come before the last was asked for
	for _, err := range log.Follow(ctx, after) {
		b.ring(one)
		if err != nil {
			return // the store is closed, or what it has cannot be read: who looks will see
		}
	}
}

func (b *logBell) ring(one *bell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ear := range one.ears {
		select {
		case ear <- struct{}{}:
		default:
		}
	}
}
