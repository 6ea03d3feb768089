package forward

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// The pause after an accept that failed, doubled from one to the other.
const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// forward is one forward at work.
type forward struct {
	bound     Bound
	target    string
	listeners []net.Listener
	// unreachable is set once that was reported, until a connection works.
	unreachable atomic.Bool
}

// accept takes connections from one listener until the App closes or the
// listener is of no more use. What an accept can fail with beside that, such
// as no file descriptor being left or a client that went away, passes.
func (a *App) accept(f *forward, l net.Listener) {
	pause := time.Duration(0)
	for {
		local, err := l.Accept()
		if err == nil {
			pause = 0
			// A TCP listener gives nothing else.
			a.take(f, local.(localConn))
			continue
		}
		if a.isClosing() {
			return
		}
		if listenerDead(err) {
			a.log.Warn("listener failed", zap.Stringer("address", l.Addr()), zap.Error(err))
			a.opts.OnProblem(Problem{Forward: f.bound, Err: err,
				Sentence: fmt.Sprintf("no longer listening on %s: %v", l.Addr(), err)})
			_ = l.Close()
			a.listenerDied(fmt.Errorf("listen on %s: %w", l.Addr(), err))
			return
		}
		// A client that gives up before it is accepted is no trouble of ours.
		if pause == 0 && !errors.Is(err, syscall.ECONNABORTED) {
			a.log.Warn("cannot accept, trying on", zap.Stringer("address", l.Addr()), zap.Error(err))
			a.opts.OnProblem(Problem{Forward: f.bound, Err: err,
				Sentence: fmt.Sprintf("cannot accept connections on %s for now: %v", l.Addr(), err)})
		}
		pause = min(max(2*pause, minAcceptPause), maxAcceptPause)
		if !a.sleep(pause) {
			return
		}
	}
}

// take admits an accepted connection and serves it, or resets it.
func (a *App) take(f *forward, local localConn) {
	if !a.counters.admit(a.opts.MaxConns) {
		a.tooMany.Do(func() {
			a.opts.OnProblem(Problem{Forward: f.bound, Err: ErrTooManyConns,
				Sentence: fmt.Sprintf("%d connections are open, further ones are refused", a.opts.MaxConns)})
		})
		reset(local)
		return
	}
	a.serving.Go(func() {
		reason, err := a.serve(f, local)
		a.counters.end(reason)
		if reason != reasonNone {
			a.log.Debug("connection failed", zap.Stringer("forward", f.bound.Spec),
				zap.Stringer("reason", reason), zap.Error(err))
		}
	})
}

// listenerDead reports whether an accept error means that no later accept can
// succeed: the socket is closed or was never one to accept on (accept(2)).
func listenerDead(err error) bool {
	for _, fatal := range []error{net.ErrClosed, syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK, syscall.EOPNOTSUPP} {
		if errors.Is(err, fatal) {
			return true
		}
	}
	return false
}

func (a *App) isClosing() bool {
	select {
	case <-a.closing:
		return true
	default:
		return false
	}
}

// sleep waits, and reports false if the App closes meanwhile.
func (a *App) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-a.closing:
		return false
	}
}
