package tailnet

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tunneler/tunneler/events"
)

// flowQueue is how many datagrams a flow holds for its reader. Beyond that the
// newest is dropped and counted, as a UDP socket does.
const flowQueue = 128

// Flow is a UDP flow to a target at the agent's side: a [net.Conn] that keeps
// the boundaries of datagrams, and like UDP neither their order nor all of
// them. It lives as long as the stream that opened it.
type Flow struct {
	s     *Stream
	id    uint64
	queue chan []byte
	read  deadline

	// ended is closed when the stream has, err says how; nothing more comes.
	ended chan struct{}
	err   error
	watch sync.WaitGroup

	writeMu sync.Mutex
	scratch []byte
}

var _ net.Conn = (*Flow)(nil)

func newFlow(s *Stream) *Flow {
	return &Flow{
		s:     s,
		id:    uint64(s.q.StreamID()),
		queue: make(chan []byte, flowQueue),
		read:  makeDeadline(),
		ended: make(chan struct{}),
	}
}

// OpenFlow opens a UDP flow, as Open opens a stream: datagrams may be written
// at once, and Read fails with an *events.Reply if the agent refuses. The
// header's network is set to UDP.
func (c *Conn) OpenFlow(ctx context.Context, header events.OpenHeader) (*Flow, error) {
	header.Network = events.NetworkUDP
	s, err := c.Open(ctx, header)
	if err != nil {
		return nil, err
	}
	f := newFlow(s)
	c.flows.add(f)
	f.start()
	return f, nil
}

// Flow answers the opening of a UDP flow that the target was reached, and
// gives the flow. Datagrams that came meanwhile are kept, up to the limit of a
// flow's queue.
func (in *Incoming) Flow() (*Flow, error) {
	if in.flow == nil && in.err == nil {
		return nil, errNoFlow
	}
	if err := in.ok(); err != nil {
		if in.flow != nil {
			in.s.conn.flows.remove(in.flow)
		}
		return nil, err
	}
	in.flow.start()
	return in.flow, nil
}

var errNoFlow = errors.New("the stream opens no flow: answer it with Accept")

// start watches the stream for its end. This is the one goroutine that a flow
// costs; a stream costs none.
func (f *Flow) start() {
	f.watch.Go(func() {
		var b [1]byte
		n, err := f.s.Read(b[:])
		if n > 0 {
			// The stream of a flow carries nothing but its reply.
			f.s.Reset(events.CloseProtocol)
			err = events.ErrStreamHeader
		}
		f.err = err
		close(f.ended)
	})
}

// Header is what the flow was opened with.
func (f *Flow) Header() events.OpenHeader { return f.s.header }

// WaitReply waits for the agent's reply, as [Stream.WaitReply] does.
func (f *Flow) WaitReply(ctx context.Context) error { return f.s.WaitReply(ctx) }

// Read reads one datagram; of one that is longer than p, the beginning. It
// returns io.EOF when the peer has closed the flow and all that came before is
// read.
func (f *Flow) Read(p []byte) (int, error) {
	select {
	case <-f.read.wait():
		return 0, os.ErrDeadlineExceeded
	default:
	}
	select {
	case b := <-f.queue:
		return copy(p, b), nil
	default:
	}
	select {
	case b := <-f.queue:
		return copy(p, b), nil
	case <-f.read.wait():
		return 0, os.ErrDeadlineExceeded
	case <-f.ended:
	}
	select { // what came before the end
	case b := <-f.queue:
		return copy(p, b), nil
	default:
		return 0, f.err
	}
}

// Write sends one datagram. One that does not fit is dropped, counted and
// answered with a *DatagramTooLargeError. Once the flow has ended at the other
// side, it fails as Read does, or with net.ErrClosed. Write waits for room in the
// connection's queue of 32 datagrams; deadlines do not bound that.
func (f *Flow) Write(p []byte) (int, error) {
	if f.s.ended.Load() {
		return 0, net.ErrClosed
	}
	if isClosed(f.ended) {
		if errors.Is(f.err, io.EOF) {
			return 0, net.ErrClosed
		}
		return 0, f.err
	}
	f.writeMu.Lock()
	defer f.writeMu.Unlock()
	b := events.AppendFlow(f.scratch[:0], f.id)
	header := len(b)
	f.scratch = append(b, p...)
	err := f.s.conn.q.SendDatagram(f.scratch)
	if tooLarge, ok := errors.AsType[*quic.DatagramTooLargeError](err); ok {
		f.s.conn.metrics.add(DatagramsTooLarge)
		return 0, &DatagramTooLargeError{Size: len(p), Max: int(tooLarge.MaxDatagramPayloadSize) - header}
	}
	if err != nil {
		return 0, f.s.conn.connError(err)
	}
	return len(p), nil
}

// Close ends the flow at both sides.
func (f *Flow) Close() error {
	f.s.conn.flows.remove(f)
	err := f.s.Close()
	f.watch.Wait()
	return err
}

// SetDeadline is SetReadDeadline: a Write has no bound to set.
func (f *Flow) SetDeadline(t time.Time) error { return f.SetReadDeadline(t) }

// SetReadDeadline bounds Read, also one under way; zero removes the bound.
func (f *Flow) SetReadDeadline(t time.Time) error {
	f.read.set(t)
	return nil
}

// SetWriteDeadline does nothing: see Write.
func (f *Flow) SetWriteDeadline(time.Time) error { return nil }

// LocalAddr is the connection's local address.
func (f *Flow) LocalAddr() net.Addr { return f.s.LocalAddr() }

// RemoteAddr is the target, as the opener named it.
func (f *Flow) RemoteAddr() net.Addr { return f.s.RemoteAddr() }

var _ io.ReadWriteCloser = (*Flow)(nil)
