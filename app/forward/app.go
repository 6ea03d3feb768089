package forward

import (
	"context"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"
)

// App is a set of port forwards. Its listeners stay open from Start to Close,
// with or without a tunnel. All methods are safe for concurrent use.
type App struct {
	opts     Options
	log      *zap.Logger
	forwards []*forward
	slot     *slot
	counters counters

	tooMany        sync.Once // MaxConns was reported
	tooManyWaiting sync.Once // MaxWaiting was reported

	accepting sync.WaitGroup // accept loops
	serving   sync.WaitGroup // connections; grows only while an accept loop runs

	closing   chan struct{} // closed when Close begins
	closeOnce sync.Once
	force     chan struct{} // closed by Abort, ends draining
	forceOnce sync.Once

	mu     sync.Mutex
	alive  int     // listeners that have not died by themselves
	causes []error // why the others did
	done   chan struct{}
	ended  bool // done is closed
	err    error
}

// Start listens for every forward, or for none of them if one cannot be had;
// the error is then a *SpecError, *PortTakenError or *BindError. The App begins
// detached. ctx bounds Start alone: the App lives until Close or Abort.
func Start(ctx context.Context, opts Options) (*App, error) {
	opts = opts.withDefaults()
	if len(opts.Forwards) > MaxForwards {
		last := opts.Forwards[MaxForwards].String()
		return nil, &SpecError{Spec: last, Kind: ErrTooMany,
			Problem: "too many ports together with the forwards before it", Expected: "fewer"}
	}
	for _, spec := range opts.Forwards {
		if err := spec.validate(); err != nil {
			return nil, err
		}
	}
	if err := checkOverlap(opts.Forwards, func(i int) string { return opts.Forwards[i].String() }); err != nil {
		return nil, err
	}
	b := &binder{listen: opts.listen}
	listeners, err := b.bind(ctx, opts.Forwards)
	if err != nil {
		return nil, err
	}
	a := &App{
		opts:    opts,
		log:     opts.Log,
		slot:    newSlot(opts.MaxWaiting),
		closing: make(chan struct{}),
		force:   make(chan struct{}),
		done:    make(chan struct{}),
		alive:   len(b.opened),
	}
	for i, spec := range opts.Forwards {
		f := &forward{
			bound:     newBound(spec, listeners[i]),
			target:    spec.Target(),
			listeners: listeners[i],
		}
		a.forwards = append(a.forwards, f)
		for _, l := range f.listeners {
			a.accepting.Go(func() { a.accept(f, l) })
		}
	}
	return a, nil
}

// Forwards returns what is listened on, in the order of Options.Forwards.
func (a *App) Forwards() []Bound {
	bounds := make([]Bound, len(a.forwards))
	for i, f := range a.forwards {
		bounds[i] = f.bound
		bounds[i].Addrs = append([]net.Addr(nil), f.bound.Addrs...)
	}
	return bounds
}

// Attach hands over a live tunnel: connections that wait are dialled through
// it at once, and so are new ones. If one is attached already it is replaced,
// and its connections are reset as by Detach. Attach does not block, and does
// nothing once Close has begun.
func (a *App) Attach(d Dialer) { a.slot.attach(d) }

// Detach takes the tunnel away. Listeners stay open and new connections wait;
// connections whose dial is under way wait too, for not a byte of theirs has
// been read; those in flight are reset. Detach does not block.
func (a *App) Detach() { a.slot.detach(ReasonTunnelLost) }

// Done is closed when the App has come to its end: Close or Abort is complete,
// or every listener has failed for good. In the latter case connections in
// flight go on, and Close must still be called.
func (a *App) Done() <-chan struct{} { return a.done }

// Wait waits for Done and returns nil after Close or Abort and a *DeadError if
// the listeners failed.
func (a *App) Wait() error {
	<-a.done
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// Close stops listening at once, resets connections that wait for a tunnel,
// lets the others finish for at most Options.DrainTimeout and resets the rest.
// It returns, always nil, when every goroutine has ended. A second call waits
// for the first.
func (a *App) Close() error {
	a.closeOnce.Do(a.close)
	return nil
}

// Abort is Close without draining. It also cuts short a Close under way.
func (a *App) Abort() {
	a.forceOnce.Do(func() { close(a.force) })
	_ = a.Close()
}

func (a *App) close() {
	close(a.closing)
	a.slot.close()
	for _, f := range a.forwards {
		for _, l := range f.listeners {
			_ = l.Close()
		}
	}
	a.accepting.Wait()
	a.drain()
	a.slot.detach(ReasonClosed)
	a.serving.Wait()
	a.slot.cutting.Wait()
	a.finish(nil)
}

// drain waits for the connections to end by themselves, as long as they may.
func (a *App) drain() {
	if a.opts.DrainTimeout <= 0 {
		return
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		a.serving.Wait()
	}()
	timer := time.NewTimer(a.opts.DrainTimeout)
	defer timer.Stop()
	select {
	case <-finished:
		return
	case <-timer.C:
	case <-a.force:
	}
	a.slot.detach(ReasonClosed)
	<-finished
}

// finish closes Done, once.
func (a *App) finish(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return
	}
	a.ended, a.err = true, err
	close(a.done)
}

// listenerDied notes that a listener failed for good, and ends the App if it
// was the last one.
func (a *App) listenerDied(cause error) {
	a.mu.Lock()
	a.alive--
	a.causes = append(a.causes, cause)
	last, causes := a.alive == 0, a.causes
	a.mu.Unlock()
	if last {
		a.finish(&DeadError{Causes: causes})
	}
}
