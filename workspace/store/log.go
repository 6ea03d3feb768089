package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// The stream of all logs. What the server has stored it announces, without the
// text, under announcePrefix: one subscription serves every Follow.
const (
	logStream      = "LOGS"
	logPrefix      = "logs."
	announcePrefix = "logged."
	// maxLogBatches bounds the batches of one log, and with it the cost of many
	// tiny ones; its oldest are dropped first.
	maxLogBatches = 20_000
)

// openLogs creates the stream of logs or finds it as it should be.
func (s *Store) openLogs(ctx context.Context) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	config := jetstream.StreamConfig{
		Name:              logStream,
		Subjects:          []string{logPrefix + ">"},
		Storage:           jetstream.FileStorage,
		MaxMsgsPerSubject: maxLogBatches,
		MaxBytes:          s.opts.LogBytes,
		Discard:           jetstream.DiscardOld,
		AllowDirect:       true,
		DenyDelete:        true,
		RePublish:         &jetstream.RePublish{Source: logPrefix + ">", Destination: announcePrefix + ">", HeadersOnly: true},
		Metadata:          formatMetadata(),
	}
	var err error
	s.logs, err = s.js.CreateStream(ctx, config) // no more than a look if it exists as it should
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		if err = s.checkStreamFormat(ctx, logStream); err == nil {
			s.logs, err = s.js.UpdateStream(ctx, config)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot open the logs: %w", s.translate(ctx, err))
	}
	sub, err := s.nc.Subscribe(announcePrefix+">", func(m *nats.Msg) {
		s.appended.wake(m.Subject[len(announcePrefix):])
	})
	if err == nil {
		err = sub.SetPendingLimits(-1, -1) // they are small, and looked at at once
	}
	if err != nil {
		return fmt.Errorf("cannot open the logs: %w", s.translate(ctx, err))
	}
	return nil
}

// Log is a durable sequence of lines with one writer at a time. (Several are
// safe, but get in each other's way.) A log comes into being with its first
// line, and its oldest lines are dropped when it exceeds Options.LogBytesPerLog,
// or 20,000 appends, or all logs together exceed Options.LogBytes. It is safe for
// concurrent use.
type Log struct {
	store   *Store
	name    string
	subject string

	turn chan struct{} // capacity 1: held by who appends; guards what follows
	tail *tail         // nil if it has to be read
}

// tail is the end of a log.
type tail struct {
	batchHeader
	seq   uint64 // of the last batch; 0 if there is none
	floor uint64 // bytes of Output ahead of the oldest batch that is left
}

func (t *tail) lastID() int64 {
	if t.seq == 0 {
		return 0
	}
	return recordID(t.seq, t.Records-1)
}

// Log returns the log of that name; the rules for keys apply to names of logs.
func (s *Store) Log(name string) (*Log, error) {
	if err := validatePath("log", name); err != nil {
		return nil, err
	}
	return &Log{store: s, name: name, subject: logPrefix + name, turn: make(chan struct{}, 1)}, nil
}

// Append adds records in their order, but for those whose Origin the log has
// seen, and returns the ID of the log's last record, 0 if it has none. What fits into
// 256 KiB is added as a whole or not at all; of more, with an error, a beginning
// may have been added, and the ID says how much.
func (l *Log) Append(ctx context.Context, records ...LogRecord) (int64, error) {
	done, err := l.takeTurn(ctx)
	if err != nil {
		return 0, l.error("append", err)
	}
	defer done()
	for lost := 0; lost < maxTries; {
		known := l.tail != nil
		if !known {
			if err := l.loadTail(ctx); err != nil {
				return 0, l.error("append", err)
			}
		}
		last := l.tail.lastID()
		news := unseen(records, l.tail.Origin)
		if len(news) == 0 {
			if len(records) == 0 || !known {
				return last, nil
			}
			l.tail = nil // the log may have been purged by somebody else: ask it
			continue
		}
		rest, err := l.appendBatch(ctx, news)
		switch {
		case err == nil:
			records = rest
			l.trim(ctx)
		case isWrongSequence(err): // somebody else has appended, or purged
			l.tail = nil
			lost++
		default:
			l.tail = nil // it may have been stored all the same
			return last, l.error("append", err)
		}
	}
	return 0, l.error("append", ErrConflict)
}

// takeTurn waits until nobody else uses the tail.
func (l *Log) takeTurn(ctx context.Context) (done func(), err error) {
	select {
	case l.turn <- struct{}{}:
		return func() { <-l.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// unseen returns the records whose Origin grows beyond seen, or is 0.
func unseen(records []LogRecord, seen uint64) []LogRecord {
	var out []LogRecord
	for i, r := range records {
		switch {
		case r.Origin == 0:
		case r.Origin <= seen:
			if out == nil {
				out = append(make([]LogRecord, 0, len(records)-1), records[:i]...)
			}
			continue
		default:
			seen = r.Origin
		}
		if out != nil {
			out = append(out, r)
		}
	}
	if out == nil {
		return records
	}
	return out
}

// appendBatch stores one batch after the tail and returns what did not fit.
func (l *Log) appendBatch(ctx context.Context, records []LogRecord) ([]LogRecord, error) {
	data, header, rest, err := encodeBatch(records, l.tail.batchHeader)
	if err != nil {
		return nil, err
	}
	seq, err := l.store.publish(ctx, l.subject, nil, data, l.tail.seq)
	if err != nil {
		return nil, err
	}
	l.tail.batchHeader, l.tail.seq = header, seq
	return rest, nil
}

func (l *Log) loadTail(ctx context.Context) error {
	m, ok, err := l.store.last(ctx, l.store.logs, l.subject)
	if err != nil || !ok {
		l.tail = &tail{}
		if err != nil {
			l.tail = nil
		}
		return err
	}
	last, _, err := decodeHeader(m.data)
	if err != nil {
		return l.corrupt(m, err)
	}
	first, err := l.headers(ctx, 1, 1)
	if err != nil {
		return err
	}
	l.tail = &tail{batchHeader: last, seq: m.seq, floor: last.Before}
	if len(first) > 0 {
		l.tail.floor = first[0].Before
	}
	return nil
}

// headers returns the tails that the log had at up to n batches from a sequence on.
func (l *Log) headers(ctx context.Context, from uint64, n int) ([]tail, error) {
	msgs, _, err := l.store.fetch(ctx, logStream, l.subject, from, n)
	if err != nil {
		return nil, err
	}
	tails := make([]tail, len(msgs))
	for i, m := range msgs {
		header, _, err := decodeHeader(m.data)
		if err != nil {
			return nil, l.corrupt(m, err)
		}
		tails[i] = tail{batchHeader: header, seq: m.seq}
	}
	return tails, nil
}

// trim drops the oldest batches once the log is an eighth above its limit.
// It is not the writer's fault if that fails, so it is tried again after the next Append.
func (l *Log) trim(ctx context.Context) {
	limit := uint64(l.store.opts.LogBytesPerLog)
	size := l.tail.Before + l.tail.Bytes
	if size-l.tail.floor <= limit+limit/8 {
		return
	}
	if err := l.trimTo(ctx, size-limit); err != nil {
		l.store.log.Warn("cannot drop the oldest lines of a log", zap.String("log", l.name), zap.Error(err))
	}
}

// trimTo drops the batches that begin before an offset in the log's text, but
// never the last one, which says where the log is.
func (l *Log) trimTo(ctx context.Context, offset uint64) error {
	for next := uint64(1); ; {
		batches, err := l.headers(ctx, next, 64)
		if err != nil {
			return err
		}
		if len(batches) == 0 {
			return nil
		}
		for _, b := range batches {
			if b.Before >= offset || b.seq == l.tail.seq {
				ctx, cancel := l.store.bounded(ctx)
				defer cancel()
				err := l.store.logs.Purge(ctx, jetstream.WithPurgeSubject(l.subject), jetstream.WithPurgeSequence(b.seq))
				if err == nil {
					l.tail.floor = b.Before
				}
				return l.store.translate(ctx, err)
			}
			next = b.seq + 1
		}
	}
}

// Purge removes all records. What the log has seen of Origin is forgotten; IDs
// go on growing.
func (l *Log) Purge(ctx context.Context) error {
	done, err := l.takeTurn(ctx)
	if err != nil {
		return l.error("purge", err)
	}
	defer done()
	l.tail = nil
	ctx, cancel := l.store.bounded(ctx)
	defer cancel()
	if err := l.store.logs.Purge(ctx, jetstream.WithPurgeSubject(l.subject)); err != nil {
		return l.error("purge", l.store.translate(ctx, err))
	}
	return nil
}

func (l *Log) error(op string, err error) error {
	return fmt.Errorf("%s log %s: %w", op, l.name, err)
}

func (l *Log) corrupt(m message, err error) error {
	return &CorruptError{What: fmt.Sprintf("log %s at %d", l.name, m.seq), Cause: err}
}
