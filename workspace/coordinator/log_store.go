package coordinator

import (
	"context"
	"sync"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/store"
)

// storeLogs reads logs from the store. A change of a workspace makes all of its
// watches ask for the end of the same log at the same time: they share the
// answer.
type storeLogs struct {
	store *store.Store
	life  context.Context //nolint:containedctx // that of the coordinator: a question is not one caller's
	wg    *sync.WaitGroup

	mu   sync.Mutex
	busy map[string]bool
	next map[string]*tailQuestion
}

// tailQuestion is a question that is yet to be asked. Whoever comes before that
// may share the answer: it is no older than they are.
type tailQuestion struct {
	answered chan struct{}
	id       int64
	err      error
}

func (s *storeLogs) page(ctx context.Context, name string, after int64, limit int) ([]events.Log, error) {
	log, err := s.store.Log(name)
	if err != nil {
		return nil, err
	}
	records, err := log.Read(ctx, after, limit)
	return eventLogs(records), storeError(err)
}

func (s *storeLogs) lastID(ctx context.Context, name string) (int64, error) {
	s.mu.Lock()
	q := s.next[name]
	if q == nil {
		q = &tailQuestion{answered: make(chan struct{})}
		s.next[name] = q
	}
	if !s.busy[name] {
		s.busy[name] = true
		s.wg.Go(func() { s.ask(name) })
	}
	s.mu.Unlock()
	select {
	case <-q.answered:
		return q.id, q.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// ask asks one question after the other about a log, as long as there are any.
func (s *storeLogs) ask(name string) {
	for {
		s.mu.Lock()
		q := s.next[name]
		delete(s.next, name)
		if q == nil {
			delete(s.busy, name)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		q.id, q.err = s.tail(name)
		close(q.answered)
	}
}

func (s *storeLogs) tail(name string) (int64, error) {
	log, err := s.store.Log(name)
	if err != nil {
		return 0, err
	}
	last, _, err := log.Last(s.life)
	return last.ID, storeError(err)
}
