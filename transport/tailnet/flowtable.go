package tailnet

import (
	"context"
	"sync"
	"time"

	"github.com/tunneler/tunneler/events"
)

// earlyDatagrams is how many datagrams are held for flows whose header has not
// been read yet: the opener sends them behind the header, and nothing keeps the
// order of a stream and a datagram. Of a resolver's only question, the loss
// would cost a second.
const earlyDatagrams = 64

// flowTable hands the connection's datagrams to its flows.
type flowTable struct {
	conn *Conn

	mu      sync.Mutex
	flows   map[uint64]*Flow
	early   []earlyDatagram
	started bool
}

type earlyDatagram struct {
	id      uint64
	payload []byte
}

// add begins to take datagrams for f, and hands it those that were early. The
// connection's first flow starts the goroutine that reads datagrams: most
// connections never have one.
func (t *flowTable) add(f *Flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flows == nil {
		t.flows = make(map[uint64]*Flow)
	}
	t.flows[f.id] = f
	kept := t.early[:0]
	for _, d := range t.early {
		if d.id == f.id {
			t.push(f, d.payload)
		} else {
			kept = append(kept, d)
		}
	}
	clear(t.early[len(kept):])
	t.early = kept
	if !t.started {
		t.started = true
		t.conn.spawn(t.run)
	}
}

func (t *flowTable) remove(f *Flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flows[f.id] == f {
		delete(t.flows, f.id)
	}
}

func (t *flowTable) run() {
	for {
		// The connection's end ends this, not the context.
		b, err := t.conn.q.ReceiveDatagram(context.Background())
		if err != nil {
			return
		}
		id, payload, err := events.SplitFlow(b)
		if err != nil {
			t.conn.metrics.add(DatagramsUnknown)
			continue
		}
		t.deliver(id, payload)
	}
}

func (t *flowTable) deliver(id uint64, payload []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.flows[id]; f != nil {
		t.push(f, payload)
		return
	}
	// The tunneler knows a flow before its first datagram leaves. The agent
	// may yet learn of this one; if not, it is dropped when others push it out.
	if !t.conn.client {
		if len(t.early) == earlyDatagrams {
			t.early = append(t.early[:0], t.early[1:]...)
			t.conn.metrics.add(DatagramsUnknown)
		}
		t.early = append(t.early, earlyDatagram{id, payload})
		return
	}
	t.conn.metrics.add(DatagramsUnknown)
}

func (t *flowTable) push(f *Flow, payload []byte) {
	select {
	case f.queue <- payload:
	default:
		t.conn.metrics.add(DatagramsOverflow)
	}
}

// deadline is a channel that is closed when a time has come, and can be set
// anew; as in net's Pipe.
type deadline struct {
	mu     sync.Mutex
	timer  *time.Timer
	passed chan struct{}
}

func makeDeadline() deadline { return deadline{passed: make(chan struct{})} }

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.passed // the timer has fired: wait until it has closed the channel
	}
	d.timer = nil
	closed := isClosed(d.passed)
	switch wait := time.Until(t); {
	case t.IsZero() || wait > 0:
		if closed {
			d.passed = make(chan struct{})
		}
		if !t.IsZero() {
			passed := d.passed
			d.timer = time.AfterFunc(wait, func() { close(passed) })
		}
	case !closed:
		close(d.passed)
	}
}

func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
