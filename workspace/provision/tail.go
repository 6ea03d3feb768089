package provision

import (
	"context"
	"time"

	"go.uber.org/zap"
)

const (
	// The output file is looked at every shortestLook while it grows, and ever more rarely down to longestLook while
	// it does not.
	shortestLook = 10 * time.Millisecond
	longestLook  = 250 * time.Millisecond
	// quiet is how long a line without an end waits for it.
	quiet = time.Second
)

// A tail follows a workspace's output file in a goroutine of its own.
type tail struct {
	follower *follower
	log      *zap.Logger
	stop     context.CancelFunc
	done     chan struct{}
}

func startTail(f *follower, log *zap.Logger) *tail {
	ctx, stop := context.WithCancel(context.Background())
	t := &tail{follower: f, log: log, stop: stop, done: make(chan struct{})}
	go t.run(ctx)
	return t
}

// finish delivers what is left and ends.
func (t *tail) finish() {
	t.stop()
	<-t.done
	if err := t.follower.drain(); err != nil {
		t.log.Warn("the last output of a workspace cannot be read", zap.Error(err))
	}
	t.close()
}

// detach ends and leaves what was not delivered for later.
func (t *tail) detach() {
	t.stop()
	<-t.done
	t.close()
}

func (t *tail) close() {
	if err := t.follower.close(); err != nil {
		t.log.Warn("the output file of a workspace cannot be closed", zap.Error(err))
	}
}

func (t *tail) run(ctx context.Context) {
	defer close(t.done)
	look := shortestLook
	timer := time.NewTimer(0)
	defer timer.Stop()
	var failed error
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		more, err := t.follower.poll()
		if err != nil && failed == nil {
			t.log.Warn("the output of a workspace cannot be read for now", zap.Error(err))
		}
		failed = err
		switch {
		case more:
			last, look = time.Now(), shortestLook
			timer.Reset(0)
			continue
		case time.Since(last) >= quiet:
			t.follower.flush()
		}
		timer.Reset(look)
		look = min(look*3/2, longestLook)
	}
}
