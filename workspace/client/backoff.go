package client

import (
	"context"
	"time"
)

// backoff doubles from min to max; jitter takes up to 30 % off.
type backoff struct {
	min, max time.Duration
	random   func() float64
}

// delay is how long to wait after the attempt-th failure in a row, from 1.
func (b backoff) delay(attempt int) time.Duration {
	d := b.max
	if shift := attempt - 1; shift < 16 {
		d = min(b.max, b.min<<shift)
	}
	return d - time.Duration(0.3*b.random()*float64(d))
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
