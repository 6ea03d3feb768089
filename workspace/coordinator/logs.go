package coordinator

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/store"
)

const (
	// maxPending bounds the lines of one build that wait to be stored; whoever
	// writes more has to wait.
	maxPending = 4096
	// storeRetry is the pause before something is stored that could not be.
	storeRetry = 500 * time.Millisecond
	// shortOutput is what a line is cut to, in bytes, whose message would be too
	// long otherwise, and maxLogExtra is more than such a message has beside it.
	shortOutput = 32 << 10
	maxLogExtra = 4 << 10
)

// The names of logs in the store. Each build and each agent process has its
// own; line IDs grow across all of them.
func buildLogName(workspace string, number int64) string {
	return "build." + buildKey(workspace, number)
}

func agentLogName(workspace, agentID string) string { return "agent." + workspace + "." + agentID }

// eventLog renders a line as the watch and the API show it.
func eventLog(r store.LogRecord) events.Log {
	l := events.Log{ID: r.ID, CreatedAt: r.CreatedAt, Source: r.Source, Stage: r.Stage, Output: r.Output}
	_ = l.Level.UnmarshalText([]byte(r.Level)) // never fails
	if len(l.Output) > shortOutput {
		// A byte may take six in JSON.
		if b, err := json.Marshal(l.Output); err != nil || len(b) > events.MaxWatchMessage-maxLogExtra {
			l.Output = cut(l.Output, shortOutput)
		}
	}
	return l
}

func eventLogs(records []store.LogRecord) []events.Log {
	logs := make([]events.Log, len(records))
	for i, r := range records {
		logs[i] = eventLog(r)
	}
	return logs
}

// logWriter stores the lines of one build, as many at a time as have come. It
// holds a goroutine only while there are any.
type logWriter struct {
	log *store.Log
	// life ends with the coordinator: what the store has not taken by then is
	// lost, and counted by lost.
	life   context.Context //nolint:containedctx // see above
	wg     *sync.WaitGroup
	lost   func(lines int)
	logger *zap.Logger

	mu      sync.Mutex
	changed sync.Cond // room was made, or all is stored
	pending []store.LogRecord
	writing bool

	// origin is the number of the last line; known once it has been asked for.
	// By it a line that was stored though the store said otherwise is not
	// stored twice.
	origin uint64
	known  bool
}

func (c *Coordinator) newLogWriter(workspace string, number int64) (*logWriter, error) {
	log, err := c.cfg.Store.Log(buildLogName(workspace, number))
	if err != nil {
		return nil, err
	}
	w := &logWriter{
		log: log, life: c.life, wg: &c.work, logger: c.log,
		lost: func(n int) { c.metrics.droppedLogs.WithLabelValues("build").Add(float64(n)) },
	}
	w.changed.L = &w.mu
	return w, nil
}

// write adds a line. It waits while too many are pending.
func (w *logWriter) write(r store.LogRecord) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pending) >= maxPending {
		w.changed.Wait()
	}
	if w.life.Err() != nil {
		w.lost(1)
		return
	}
	w.pending = append(w.pending, r)
	if !w.writing {
		w.writing = true
		w.wg.Go(w.run)
	}
}

// flush returns when all lines so far are stored or given up.
func (w *logWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.writing {
		w.changed.Wait()
	}
}

func (w *logWriter) run() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pending) > 0 {
		lines := w.pending
		w.pending = nil
		w.changed.Broadcast()
		w.mu.Unlock()
		w.store(lines)
		w.mu.Lock()
	}
	w.writing = false
	w.changed.Broadcast()
}

// store tries until it is done or the coordinator ends.
func (w *logWriter) store(lines []store.LogRecord) {
	for {
		err := w.tryStore(lines)
		if err == nil {
			return
		}
		w.logger.Debug("a build's log cannot be stored", zap.Error(err))
		if !unavailable(storeError(err)) || sleep(w.life, storeRetry) != nil {
			w.lost(len(lines))
			return
		}
	}
}

func (w *logWriter) tryStore(lines []store.LogRecord) error {
	if !w.known {
		last, _, err := w.log.Last(w.life)
		if err != nil {
			return err
		}
		w.origin, w.known = last.Origin, true
	}
	if lines[0].Origin == 0 {
		for i := range lines {
			w.origin++
			lines[i].Origin = w.origin
		}
	}
	_, err := w.log.Append(w.life, lines...)
	return err
}

// sleep waits for d, or returns the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
