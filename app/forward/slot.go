package forward

import (
	"context"
	"sync"
	"time"
)

// slot holds the tunnel that connections are dialled through, or none, and
// those that wait for one.
type slot struct {
	maxWaiting int

	mu      sync.Mutex
	tunnel  *tunnel       // nil while detached, and maybe retired
	changed chan struct{} // closed, and replaced, when a tunnel comes or the slot closes
	closed  bool          // nothing waits and no tunnel is taken any more
	waiting int

	// cutting are the goroutines that cut a tunnel's connections. They are
	// started under mu, and none once the slot is closed and empty.
	cutting sync.WaitGroup
}

// tunnel is one attached Dialer and what runs on it.
type tunnel struct {
	dialer Dialer
	// ctx ends when the tunnel is taken away, and with it the dials.
	ctx    context.Context
	cancel context.CancelFunc

	// Guarded by slot.mu.
	retired bool               // it takes no new connections
	conns   map[*conn]struct{} // nil once taken away
}

func newSlot(maxWaiting int) *slot {
	return &slot{maxWaiting: maxWaiting, changed: make(chan struct{})}
}

// attach puts a tunnel in place of the one that is there, if any.
func (s *slot) attach(d Dialer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.takeLocked(ReasonTunnelLost)
	ctx, cancel := context.WithCancel(context.Background())
	s.tunnel = &tunnel{dialer: d, ctx: ctx, cancel: cancel, conns: make(map[*conn]struct{})}
	s.wakeLocked()
}

// detach takes the tunnel away and cuts its connections, without waiting for
// that.
func (s *slot) detach(reason Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeLocked(reason)
}

// retire keeps new connections from a tunnel that takes none any more. Those
// it has are left alone until it is taken away.
func (s *slot) retire(t *tunnel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.retired = true
}

// usableLocked is the tunnel for new connections, or nil.
func (s *slot) usableLocked() *tunnel {
	if s.tunnel == nil || s.tunnel.retired {
		return nil
	}
	return s.tunnel
}

// close lets nothing in any more. The tunnel stays for those that use it.
func (s *slot) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.wakeLocked()
}

func (s *slot) takeLocked(reason Reason) {
	t := s.tunnel
	if t == nil {
		return
	}
	s.tunnel = nil
	t.cancel()
	conns := t.conns
	t.conns = nil
	if len(conns) == 0 {
		return
	}
	s.cutting.Go(func() {
		for c := range conns {
			c.cut(reason)
		}
	})
}

func (s *slot) wakeLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait returns the tunnel, waiting until a point in time for one to come. The
// errors are errNoTunnel, errClosed and ErrTooManyWaiting.
func (s *slot) wait(until func() time.Time) (*tunnel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.usableLocked(); t != nil {
		return t, nil
	}
	if s.closed {
		return nil, errClosed
	}
	if s.waiting >= s.maxWaiting {
		return nil, ErrTooManyWaiting
	}
	s.waiting++
	defer func() { s.waiting-- }()
	timer := time.NewTimer(time.Until(until()))
	defer timer.Stop()
	for late := false; ; {
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			late = true
		}
		s.mu.Lock()
		if t := s.usableLocked(); t != nil {
			return t, nil
		}
		if s.closed {
			return nil, errClosed
		}
		if late {
			return nil, errNoTunnel
		}
	}
}

// add registers a connection with the tunnel that it was dialled through, so
// that it is cut with it; false says that the tunnel is gone.
func (s *slot) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.tunnel.conns == nil {
		return false
	}
	c.tunnel.conns[c] = struct{}{}
	return true
}

func (s *slot) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(c.tunnel.conns, c)
}

func (s *slot) waitingNow() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting
}
