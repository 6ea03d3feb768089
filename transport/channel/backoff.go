package channel

import "time"

// The schedule of reconnects (docs/protocol.md, section 2).
const (
	defaultBackoffFloor = time.Second
	defaultBackoffCeil  = 60 * time.Second
	backoffJitter       = 0.3

	// backoffReset is how long a connection must have been up for the schedule
	// to begin anew.
	backoffReset = 30 * time.Second

	// maxRetryAfter bounds how long a server may put a client off at once.
	maxRetryAfter = 5 * time.Minute
)

// backoff is the schedule of reconnects: it doubles from floor to ceil, and
// random takes up to 30 % off each delay, so that the clients of a server that
// went away do not come back all at once.
type backoff struct {
	floor, ceil time.Duration
	random      func() float64
	last        time.Duration
}

func (b *backoff) next() time.Duration {
	if b.last == 0 {
		b.last = b.floor
	} else {
		b.last = min(2*b.last, b.ceil)
	}
	return b.last - time.Duration(backoffJitter*b.random()*float64(b.last))
}

func (b *backoff) reset() { b.last = 0 }
