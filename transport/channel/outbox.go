package channel

import (
	"context"
	"slices"
	"sync"

	"github.com/tunneler/tunneler/events"
)

// frame is a message that waits to be sent, encoded.
type frame struct {
	msg  events.ChannelMessage
	wire []byte
	// again is set once it was written to a connection that broke.
	again bool
}

// outbox is what a client has to send. It outlives connections.
//
// A message stays in the queue until it has been written. Beyond that, two
// kinds are kept, because their loss on a broken connection would matter: log
// batches until they are acknowledged, and the last lifecycle, which is the
// state that the other side should have. Both may arrive twice: entries have
// sequence numbers, and a state that is already known changes nothing.
type outbox struct {
	limit  int // of the queue
	window int // of log batches that are not acknowledged, in the queue or not

	mu        sync.Mutex
	queue     []frame
	unacked   []frame // log batches that were written, in order
	lifecycle *frame  // the last one that was written
	writing   bool    // the last one taken is not yet written
	logs      int     // log batches in queue and unacked
	closed    bool    // nothing may be added any more

	// wake has room for one: there may be something to write.
	wake chan struct{}
	// changed is closed, and made anew, when something has left.
	changed chan struct{}
}

func newOutbox(limit, window int) *outbox {
	return &outbox{limit: limit, window: window, wake: make(chan struct{}, 1), changed: make(chan struct{})}
}

// put waits for room and adds m.
func (o *outbox) put(ctx context.Context, m events.ChannelMessage, ended <-chan struct{}) error {
	f, err := newFrame(m)
	if err != nil {
		return err
	}
	for {
		ok, changed, err := o.offer(f)
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ended:
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tryPut adds m if there is room.
func (o *outbox) tryPut(m events.ChannelMessage) bool {
	f, err := newFrame(m)
	if err != nil {
		return false
	}
	ok, _, err := o.offer(f)
	return ok && err == nil
}

func newFrame(m events.ChannelMessage) (frame, error) {
	wire, err := encode(m)
	return frame{msg: m, wire: wire}, err
}

// offer adds f if there is room, and else gives what is closed when there may be.
func (o *outbox) offer(f frame) (ok bool, changed <-chan struct{}, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	logs, isLogs := f.msg.(*events.AgentLogs)
	switch {
	case o.closed:
		return false, nil, ErrClosed
	case isLogs && len(logs.Entries) == 0:
		return true, nil, nil // nothing that could be acknowledged
	case len(o.queue) >= o.limit, isLogs && o.logs >= o.window:
		return false, o.changed, nil
	}
	if isLogs {
		o.logs++
	}
	o.queue = append(o.queue, f)
	o.signal()
	return true, nil, nil
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// released tells those who wait for room or for the end.
func (o *outbox) released() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// take gives the next message to write. Log batches and lifecycles count as
// written from now on: the acknowledgement may be faster than the writer.
func (o *outbox) take() (frame, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 {
		return frame{}, false
	}
	f := o.queue[0]
	o.queue = slices.Delete(o.queue, 0, 1)
	switch f.msg.(type) {
	case *events.AgentLogs:
		o.unacked = append(o.unacked, f)
	case *events.AgentLifecycle:
		o.lifecycle = &f
	}
	o.writing = true
	o.released()
	return f, true
}

// wrote ends what take began. A message that could not be written is put back,
// unless rewind will do that.
func (o *outbox) wrote(f frame, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writing = false
	switch f.msg.(type) {
	case *events.AgentLogs, *events.AgentLifecycle:
	default:
		if err != nil {
			o.queue = slices.Insert(o.queue, 0, f)
		}
	}
	o.released()
}

// acknowledged forgets the log entries up to seq.
func (o *outbox) acknowledged(seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for n < len(o.unacked) && lastSeq(o.unacked[n]) <= seq {
		n++
	}
	if n > 0 {
		o.unacked = slices.Delete(o.unacked, 0, n)
		o.logs -= n
		o.released()
	}
}

// rewind begins a new connection, whose other end has stored the log entries up
// to stored: what may have been lost is put before what was never sent.
func (o *outbox) rewind(stored uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	again := o.unacked
	if o.lifecycle != nil {
		again = append(again, *o.lifecycle)
	}
	for i := range again {
		again[i].again = true
	}
	o.unacked, o.lifecycle = nil, nil
	o.queue = slices.Concat(again, o.queue)
	o.queue = slices.DeleteFunc(o.queue, func(f frame) bool {
		if logs, ok := f.msg.(*events.AgentLogs); ok && logs.Entries[len(logs.Entries)-1].Seq <= stored {
			o.logs--
			return true
		}
		return false
	})
	o.released()
	o.signal()
}

// left is how many messages are not delivered: not written, or log batches not
// acknowledged. changed is closed when that may have changed.
func (o *outbox) left() (n int, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n = len(o.queue) + len(o.unacked)
	if n == 0 && o.writing {
		n = 1
	}
	return n, o.changed
}

// close refuses whatever comes from now on.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.released()
}

func lastSeq(f frame) uint64 {
	entries := f.msg.(*events.AgentLogs).Entries
	return entries[len(entries)-1].Seq
}
