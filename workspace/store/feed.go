package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// Pauses between attempts at something that the server should do, but does not.
const (
	minRetry = 50 * time.Millisecond
	maxRetry = 5 * time.Second
)

// feed keeps the picture up to date until ctx ends. It watches from the revision
// that the picture is at; when a watch breaks off it reads the bucket anew, since
// what was deleted meanwhile may have left no trace to watch for.
func (c *Cache[T]) feed(ctx context.Context) {
	log := c.bucket.store.log.With(zap.String("bucket", c.bucket.name))
	retry := minRetry
	for {
		err := c.watch(ctx, &retry)
		for ctx.Err() == nil {
			if err != nil {
				log.Warn("watch interrupted", zap.Error(err), zap.Duration("retry", retry))
				if pause(ctx, retry) != nil {
					return
				}
				retry = min(2*retry, maxRetry)
			}
			if err = c.resync(ctx); err == nil {
				break
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// resync replaces the picture.
func (c *Cache[T]) resync(ctx context.Context) error {
	entries, revision, err := c.bucket.snapshot(ctx)
	if err != nil {
		return fmt.Errorf("cannot read the bucket: %w", err)
	}
	c.replace(entries, revision)
	return nil
}

// watch takes changes in until the connection has been lost and is back, which
// is no error, or something is wrong with the watch.
func (c *Cache[T]) watch(ctx context.Context, retry *time.Duration) error {
	watcher, stop, err := c.startWatch()
	if err != nil {
		return fmt.Errorf("cannot watch: %w", err)
	}
	defer stop()

	check := time.NewTicker(c.bucket.store.checkEvery)
	defer check.Stop()
	var due uint64 // what the bucket was at, at the last check
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.resume:
			return nil
		case update, ok := <-watcher.Updates():
			if !ok {
				return errors.New("the server ended the watch")
			}
			if update != nil { // which says that this was the last change so far
				c.take(update)
				*retry = minRetry
			}
		case <-check.C:
			if c.Revision() < due {
				return errors.New("the watch fell silent")
			}
			info, err := c.bucket.store.info(ctx, c.bucket.stream)
			if err != nil {
				return fmt.Errorf("cannot check the watch: %w", err)
			}
			due = info.State.LastSeq
		}
	}
}

// startWatch watches from the revision that the picture is at. The library holds
// on to the context for as long as the watch lives, to renew the watch and to
// wait for its end. Thus it has no deadline, but a bound on the first answer;
// and it does not end with the cache.
func (c *Cache[T]) startWatch() (jetstream.KeyWatcher, func(), error) {
	store := c.bucket.store
	ctx, cancel := context.WithCancelCause(context.Background())
	impatience := time.AfterFunc(callTimeout, func() { cancel(errNoAnswer) })
	defer impatience.Stop()
	stop := context.AfterFunc(*store.connected.Load(), func() { cancel(errConnectionLost) })
	defer stop()
	watcher, err := c.bucket.kv.WatchAll(ctx, jetstream.IncludeHistory(), jetstream.ResumeFromRevision(c.Revision()+1))
	if err != nil {
		err = store.translate(ctx, err)
		cancel(nil)
		return nil, nil, err
	}
	return watcher, func() {
		_ = watcher.Stop() // fails only if it has stopped already
		cancel(nil)
		for {
			select {
			case _, ok := <-watcher.Updates():
				if !ok {
					return
				}
				// The library's goroutine may have been waiting to hand this over.
			case <-time.After(time.Second):
				// A watch whose context ended while it was being made may never
				// close its channel.
				return
			}
		}
	}, nil
}

func (c *Cache[T]) take(update jetstream.KeyValueEntry) {
	if update.Operation() != jetstream.KeyValuePut {
		c.set(update.Key(), nil, update.Revision())
		return
	}
	e, err := c.bucket.decode(message{
		subject: c.bucket.prefix + update.Key(),
		seq:     update.Revision(),
		time:    update.Created(),
		data:    update.Value(),
	})
	if err != nil {
		// Written by something else than this package. Bucket.Get would fail;
		// to keep serving the value before it would be worse than none.
		c.bucket.store.log.Error("value left out of the cache", zap.Error(err))
		c.set(update.Key(), nil, update.Revision())
		return
	}
	c.set(e.Key, &e, e.Revision)
}
