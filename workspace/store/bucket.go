package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// MaxValueSize bounds one encoded value, in bytes.
	MaxValueSize = 512 << 10
	// markerTTL is how long the mark of a deletion is kept. It has to outlive any
	// interruption of a watch; after that it would only take up space.
	markerTTL = 24 * time.Hour
	// maxTries bounds the compare-and-set loops. Each lost round is one that
	// somebody else has won, so this is reached only under absurd contention.
	maxTries = 100
	// listBatch is how many values one round trip of a listing asks for.
	listBatch = 1024
)

// Entry is a value with what the bucket knows of it.
type Entry[T any] struct {
	Key      string
	Value    T
	Revision uint64    // grows with every change of any key of the bucket; never reused
	Modified time.Time // by the server's clock; zero in what a write returns, which does not learn it
}

// Bucket is a durable map from keys to values of type T, which is stored as
// JSON. Every change names the revision that it replaces, so that of two
// writers one gets ErrConflict. It is safe for concurrent use.
type Bucket[T any] struct {
	store  *Store
	name   string
	prefix string // of the subjects
	kv     jetstream.KeyValue
	stream jetstream.Stream
}

// OpenBucket opens the bucket of that name and creates it if there is none.
// Opening it with another T than it was written with is the caller's mistake,
// which shows as ErrCorrupt where JSON does not fit. Names are letters, digits, "-" and "_".
func OpenBucket[T any](ctx context.Context, s *Store, name string) (*Bucket[T], error) {
	if err := validateBucket(name); err != nil {
		return nil, err
	}
	b := &Bucket[T]{store: s, name: name, prefix: "$KV." + name + "."}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	config := jetstream.KeyValueConfig{
		Bucket:         name,
		History:        1,
		Storage:        jetstream.FileStorage,
		LimitMarkerTTL: markerTTL,
		Metadata:       formatMetadata(),
	}
	var err error
	b.kv, err = s.js.CreateKeyValue(ctx, config) // no more than a look if it exists as it should
	if errors.Is(err, jetstream.ErrBucketExists) {
		if err = s.checkStreamFormat(ctx, kvStream(name)); err == nil {
			b.kv, err = s.js.UpdateKeyValue(ctx, config)
		}
	}
	if err == nil {
		b.stream, err = s.js.Stream(ctx, kvStream(name))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open bucket %s: %w", name, s.translate(ctx, err))
	}
	return b, nil
}

func kvStream(bucket string) string { return "KV_" + bucket }

// Get returns the value of key, or ErrNotFound.
func (b *Bucket[T]) Get(ctx context.Context, key string) (Entry[T], error) {
	m, err := b.get(ctx, key)
	if err != nil {
		return Entry[T]{}, b.keyError("get", key, err)
	}
	e, err := b.decode(m)
	if err != nil {
		return Entry[T]{}, b.keyError("get", key, err)
	}
	return e, nil
}

// Create stores the value of a new key, or returns ErrExists.
func (b *Bucket[T]) Create(ctx context.Context, key string, value T) (Entry[T], error) {
	e, err := b.create(ctx, key, value)
	if err != nil {
		return Entry[T]{}, b.keyError("create", key, err)
	}
	return e, nil
}

func (b *Bucket[T]) create(ctx context.Context, key string, value T) (Entry[T], error) {
	data, err := b.encode(key, value)
	if err != nil {
		return Entry[T]{}, err
	}
	var expected uint64 // that there is nothing, or the mark of a deletion
	for range maxTries {
		rev, err := b.store.publish(ctx, b.prefix+key, nil, data, expected)
		if !isWrongSequence(err) {
			return Entry[T]{Key: key, Value: value, Revision: rev}, err
		}
		m, ok, err := b.store.last(ctx, b.stream, b.prefix+key)
		switch {
		case err != nil:
			return Entry[T]{}, err
		case !ok:
			expected = 0
		case isMarker(m):
			expected = m.seq
		default:
			return Entry[T]{}, ErrExists
		}
	}
	return Entry[T]{}, ErrConflict
}

// Update replaces the value of key if it is still at revision; else it returns
// ErrConflict, or ErrNotFound if the key is gone.
func (b *Bucket[T]) Update(ctx context.Context, key string, value T, revision uint64) (Entry[T], error) {
	data, err := b.encode(key, value)
	if err == nil {
		revision, err = b.replace(ctx, key, data, nil, revision)
	}
	if err != nil {
		return Entry[T]{}, b.keyError("update", key, err)
	}
	return Entry[T]{Key: key, Value: value, Revision: revision}, nil
}

// Delete removes key if it is still at revision; else it returns ErrConflict, or
// ErrNotFound if the key is gone. The revision that it returns is that of the
// deletion, which is good for Cache.WaitRevision and nothing else.
func (b *Bucket[T]) Delete(ctx context.Context, key string, revision uint64) (uint64, error) {
	err := ValidateKey(key)
	if err == nil {
		revision, err = b.replace(ctx, key, nil, nats.Header{
			headerOperation:        {"PURGE"},
			jetstream.MsgRollup:    {jetstream.MsgRollupSubject},
			jetstream.MsgTTLHeader: {markerTTL.String()},
		}, revision)
	}
	if err != nil {
		return 0, b.keyError("delete", key, err)
	}
	return revision, nil
}

// Mutate changes the value of key with change, which may be called several times,
// each time with a fresh copy, and must not do anything else than change that. If
// it returns an error, Mutate returns it and nothing has changed; if it leaves
// the value as it was, nothing is written. It returns the value as it is then, or
// ErrNotFound, or ErrConflict if others changed the value a hundred times in a row.
func (b *Bucket[T]) Mutate(ctx context.Context, key string, change func(*T) error) (Entry[T], error) {
	for try := range maxTries {
		e, lost, err := b.mutateOnce(ctx, key, change)
		if err == nil && lost {
			err = pause(ctx, time.Duration(try)*100*time.Microsecond)
		}
		switch {
		case err != nil:
			return Entry[T]{}, b.keyError("mutate", key, err)
		case !lost:
			return e, nil
		}
	}
	return Entry[T]{}, b.keyError("mutate", key, ErrConflict)
}

// mutateOnce reports in lost that somebody else was faster.
func (b *Bucket[T]) mutateOnce(ctx context.Context, key string, change func(*T) error) (e Entry[T], lost bool, err error) {
	m, err := b.get(ctx, key)
	if err != nil {
		return Entry[T]{}, false, err
	}
	e, err = b.decode(m)
	if err != nil {
		return Entry[T]{}, false, err
	}
	if err := change(&e.Value); err != nil {
		return Entry[T]{}, false, err
	}
	data, err := b.encode(key, e.Value)
	if err != nil || bytes.Equal(data, m.data) {
		return e, false, err
	}
	rev, err := b.replace(ctx, key, data, nil, m.seq)
	if errors.Is(err, ErrConflict) {
		return Entry[T]{}, true, nil
	}
	return Entry[T]{Key: key, Value: e.Value, Revision: rev}, false, err
}

// List returns all values, ordered by key. Each is as it was at some moment
// during the call.
func (b *Bucket[T]) List(ctx context.Context) ([]Entry[T], error) {
	entries, _, err := b.snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", b.name, err)
	}
	return sortedByKey(entries), nil
}

func sortedByKey[T any](entries map[string]Entry[T]) []Entry[T] {
	list := make([]Entry[T], 0, len(entries))
	for _, e := range entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Entry[T]) int { return strings.Compare(a.Key, b.Key) })
	return list
}

func (b *Bucket[T]) keyError(op, key string, err error) error {
	return &KeyError{Op: op, Bucket: b.name, Key: key, Err: err}
}

func (b *Bucket[T]) encode(key string, value T) ([]byte, error) {
	if err := ValidateKey(key); err != nil {
		return nil, err
	}
	data, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("cannot encode value: %w", err)
	}
	if len(data) > MaxValueSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), MaxValueSize)
	}
	return data, nil
}
