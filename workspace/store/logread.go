package store

import (
	"context"
	"fmt"
	"iter"
	"time"

	"go.uber.org/zap"
)

// Limits of one Read.
const (
	MaxReadRecords = 10_000
	MaxReadBytes   = 4 << 20 // of Output; exceeded by at most one batch
)

// Read returns records in their order, from the first one whose ID is above
// after: up to limit, if that is between 1 and MaxReadRecords, and fewer if there
// is more than MaxReadBytes of text. None means that there is none yet.
func (l *Log) Read(ctx context.Context, after int64, limit int) ([]LogRecord, error) {
	if limit < 1 || limit > MaxReadRecords {
		limit = MaxReadRecords
	}
	records, _, err := l.read(ctx, max(after, 0), limit)
	if err != nil {
		return nil, l.error("read", err)
	}
	return records, nil
}

// read also says whether there is more.
func (l *Log) read(ctx context.Context, after int64, limit int) (records []LogRecord, more bool, err error) {
	next := max(batchOf(after), 1)
	more = true
	for size := uint64(0); more && len(records) < limit && size < MaxReadBytes; {
		var msgs []message
		msgs, more, err = l.store.fetch(ctx, logStream, l.subject, next, min(limit-len(records)+1, 256))
		if err != nil {
			return nil, false, err
		}
		var end uint64 // in the log's text, of the batch before
		for i, m := range msgs {
			b, err := decodeBatch(m.data)
			if err != nil && len(records) > 0 {
				return records, true, nil // and the error when it is all that is left
			}
			if err != nil {
				return nil, false, l.corrupt(m, err)
			}
			if i > 0 && b.Before != end { // only the oldest batches are ever dropped
				l.store.log.Warn("lines of a log are damaged and left out", zap.String("log", l.name), zap.Uint64("before", m.seq))
			}
			end = b.Before + b.Bytes
			for i, r := range b.Records {
				if r.ID = recordID(m.seq, i); r.ID <= after {
					continue
				}
				if len(records) == limit {
					return records, true, nil
				}
				if r.CreatedAt.IsZero() {
					r.CreatedAt = m.time
				}
				records = append(records, r)
			}
			size += b.Bytes
			next = m.seq + 1
		}
	}
	if len(records) == 0 {
		more, err = l.moreFrom(ctx, next)
	}
	return records, more, err
}

// moreFrom tells a log that has nothing from a sequence on from one that has
// something that the server cannot read, which look the same to fetch.
func (l *Log) moreFrom(ctx context.Context, next uint64) (bool, error) {
	for range 3 {
		m, ok, err := l.store.last(ctx, l.store.logs, l.subject)
		if err != nil || !ok || m.seq < next {
			return false, err
		}
		if msgs, _, err := l.store.fetch(ctx, logStream, l.subject, next, 1); err != nil || len(msgs) > 0 {
			return err == nil, err // appended meanwhile
		}
	}
	return false, &CorruptError{What: fmt.Sprintf("log %s from %d on", l.name, next), Cause: errUnreadable}
}

// Last returns the last record and whether there is one.
func (l *Log) Last(ctx context.Context) (LogRecord, bool, error) {
	m, ok, err := l.store.last(ctx, l.store.logs, l.subject)
	if err != nil {
		return LogRecord{}, false, l.error("read", err)
	}
	if !ok {
		return LogRecord{}, false, nil
	}
	b, err := decodeBatch(m.data)
	if err != nil {
		return LogRecord{}, false, l.error("read", l.corrupt(m, err))
	}
	r := b.Records[len(b.Records)-1]
	r.ID = recordID(m.seq, len(b.Records)-1)
	if r.CreatedAt.IsZero() {
		r.CreatedAt = m.time
	}
	return r, true, nil
}

// Follow yields the records whose ID is above after, those that exist and then
// those that come, in order and each once, until ctx ends. It rides out lost
// connections. What it cannot ride out, that the store is closed or corrupt, it
// yields as an error, and ends. What is dropped before it was read, it skips.
// The loop's body may take its time: nobody waits for it.
func (l *Log) Follow(ctx context.Context, after int64) iter.Seq2[LogRecord, error] {
	return func(yield func(LogRecord, error) bool) {
		wake, remove := l.store.appended.add(l.name)
		defer remove()
		retry := minRetry
		for ctx.Err() == nil {
			records, more, err := l.read(ctx, max(after, 0), MaxReadRecords)
			switch {
			case ctx.Err() != nil:
				return
			case permanent(err):
				yield(LogRecord{}, l.error("follow", err))
				return
			case err != nil:
				l.store.log.Debug("following a log interrupted", zap.String("log", l.name), zap.Error(err), zap.Duration("retry", retry))
				l.wait(ctx, nil, retry)
				retry = min(2*retry, maxRetry)
				continue
			}
			retry = minRetry
			for _, r := range records {
				if ctx.Err() != nil || !yield(r, nil) {
					return
				}
				after = r.ID
			}
			if !more {
				l.wait(ctx, wake, l.store.checkEvery)
			}
		}
	}
}

// wait returns when there is reason to look again.
func (l *Log) wait(ctx context.Context, wake <-chan struct{}, atMost time.Duration) {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	case <-ctx.Done():
	case <-l.store.ctx.Done():
	}
}
