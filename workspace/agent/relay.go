package agent

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/tailnet"
)

// resetLinger is how long what a target has said may take to arrive before the
// target's reset does: on a stream, a reset overtakes the data before it.
const resetLinger = 250 * time.Millisecond

// relay carries both directions of a stream, with the end of each as it comes
// and a reset as a reset.
func (t *tunnels) relay(stream *tailnet.Stream, target net.Conn) {
	r := &relayed{stream: stream, target: target}
	upEnded := make(chan struct{})
	go func() {
		defer close(upEnded)
		readErr, writeErr := pump(target, stream, &t.received)
		switch {
		case readErr != nil:
			r.reset()
		case writeErr != nil:
			r.ignoreRest()
		case closeWrite(target) != nil:
			r.reset()
		}
	}()
	readErr, writeErr := pump(stream, target, &t.sent)
	if readErr != nil {
		select {
		case <-upEnded: // the opener has all, or wants no more
		case <-time.After(resetLinger):
		}
	}
	if readErr != nil || writeErr != nil || stream.CloseWrite() != nil {
		r.reset()
	}
	r.answered()
	<-upEnded
	_ = stream.Close()
}

// relayed is a stream and its target.
type relayed struct {
	stream *tailnet.Stream
	target net.Conn
	once   sync.Once
	// deaf is set once the target takes nothing any more, done once it has said
	// all.
	deaf, done atomic.Bool
}

// reset cuts off both sides.
func (r *relayed) reset() {
	r.once.Do(func() {
		if tcp, ok := r.target.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // so that its close is a reset
		}
		_ = r.target.Close()
		r.stream.Reset(events.CloseNormal)
	})
}

// ignoreRest reads on for a target that takes nothing any more: it may still
// have something to say, as an HTTP server that refuses a large upload does.
func (r *relayed) ignoreRest() {
	r.deaf.Store(true)
	if r.done.Load() {
		return
	}
	var none atomic.Int64
	_, _ = pump(io.Discard, r.stream, &none) // until the opener ends, or answered does
}

// answered says that the target has nothing more to say.
func (r *relayed) answered() {
	r.done.Store(true)
	if r.deaf.Load() {
		_ = r.stream.Close()
	}
}

// closeWrite ends the direction towards the target. One that is gone already
// has no more use for it.
func closeWrite(conn net.Conn) error {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return conn.Close()
	}
	if err := half.CloseWrite(); err != nil && !errors.Is(err, net.ErrClosed) && !isNotConnected(err) {
		return err
	}
	return nil
}

// Sizes of the copy buffers in bytes. A stream that has nothing to carry holds a
// small one, for most have nothing most of the time and a tunnel may have a
// thousand; one that fills what it is given gets a large one.
const (
	smallBuffer = 4 << 10
	largeBuffer = 64 << 10
)

var (
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallBuffer); return &b }}
	largeBuffers = sync.Pool{New: func() any { b := make([]byte, largeBuffer); return &b }}
)

// pump copies src to dst until src ends, which is no error, and adds to count as
// it goes. The errors of both are kept apart: they call for different things.
func pump(dst io.Writer, src io.Reader, count *atomic.Int64) (readErr, writeErr error) {
	pool := &smallBuffers
	buf := pool.Get().(*[]byte)
	defer func() { pool.Put(buf) }()
	for {
		n, err := src.Read(*buf)
		if n > 0 {
			written, writeErr := dst.Write((*buf)[:n])
			count.Add(int64(written))
			if writeErr != nil {
				return nil, writeErr
			}
		}
		if err == io.EOF { // as io.Reader has it: one that wraps EOF is no orderly end
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
		next := &smallBuffers
		if n == len(*buf) {
			next = &largeBuffers
		}
		if next != pool {
			pool.Put(buf)
			pool, buf = next, next.Get().(*[]byte)
		}
	}
}
