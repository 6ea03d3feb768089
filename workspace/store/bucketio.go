package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Headers that mark the end of a key (NATS ADR-8, ADR-48).
const (
	headerOperation    = "KV-Operation"
	headerMarkerReason = "Nats-Marker-Reason"
)

// isMarker reports whether m stands for the absence of a value.
func isMarker(m message) bool {
	return m.header.Get(headerOperation) != "" || m.header.Get(headerMarkerReason) != ""
}

func (b *Bucket[T]) get(ctx context.Context, key string) (message, error) {
	if err := ValidateKey(key); err != nil {
		return message{}, err
	}
	m, ok, err := b.store.last(ctx, b.stream, b.prefix+key)
	switch {
	case err != nil:
		return message{}, err
	case !ok || isMarker(m):
		return message{}, ErrNotFound
	}
	return m, nil
}

func (b *Bucket[T]) decode(m message) (Entry[T], error) {
	e := Entry[T]{Key: strings.TrimPrefix(m.subject, b.prefix), Revision: m.seq, Modified: m.time}
	if err := json.Unmarshal(m.data, &e.Value); err != nil {
		return Entry[T]{}, &CorruptError{What: b.name + "/" + e.Key, Cause: err}
	}
	return e, nil
}

// replace publishes over an existing value.
func (b *Bucket[T]) replace(ctx context.Context, key string, data []byte, header nats.Header, revision uint64) (uint64, error) {
	if revision != 0 { // which would mean that there is no value
		rev, err := b.store.publish(ctx, b.prefix+key, header, data, revision)
		if !isWrongSequence(err) {
			return rev, err
		}
	}
	if _, err := b.get(ctx, key); err != nil {
		return 0, err
	}
	return 0, ErrConflict
}

// snapshot reads the whole bucket. The picture includes every change up to the
// revision that it returns, and maybe some later ones.
//
// It walks the stream in the order of sequences to its end. A key that changes
// meanwhile moves to the end, where the walk finds it: nothing is missed. A
// message that the server cannot read looks like the end to the walk, so what
// was seen is counted against the server's index.
func (b *Bucket[T]) snapshot(ctx context.Context) (map[string]Entry[T], uint64, error) {
	entries := make(map[string]Entry[T])
	seen := make(map[string]struct{}) // subjects, marks of deletion included
	var revision uint64
	for range 3 { // marks may expire, and keys appear, between count and walk
		info, err := b.store.info(ctx, b.stream)
		if err != nil {
			return nil, 0, err
		}
		for more := info.State.LastSeq > revision; more; {
			var msgs []message
			msgs, more, err = b.store.fetch(ctx, kvStream(b.name), b.prefix+">", revision+1, listBatch)
			if err != nil {
				return nil, 0, err
			}
			if len(msgs) == 0 {
				break
			}
			for _, m := range msgs {
				seen[m.subject] = struct{}{}
				if err := b.apply(entries, m); err != nil {
					return nil, 0, err
				}
			}
			revision = msgs[len(msgs)-1].seq
		}
		if uint64(len(seen)) >= info.State.Msgs {
			return entries, max(revision, info.State.LastSeq), nil
		}
	}
	return nil, 0, &CorruptError{What: fmt.Sprintf("bucket %s after revision %d", b.name, revision), Cause: errUnreadable}
}

// apply makes entries reflect m.
func (b *Bucket[T]) apply(entries map[string]Entry[T], m message) error {
	if isMarker(m) {
		delete(entries, strings.TrimPrefix(m.subject, b.prefix))
		return nil
	}
	e, err := b.decode(m)
	if err == nil {
		entries[e.Key] = e
	}
	return err
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
