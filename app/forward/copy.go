package forward

import (
	"io"
	"net"
	"sync"
)

// Sizes of the copy buffers in bytes. By BenchmarkBufferSize the processor time
// of a loopback copy falls until 32 KiB and no further; large leaves some room.
// Small is what a connection holds while it has nothing to carry, as most do
// most of the time: ten thousand idle ones would otherwise hold more than a
// gibibyte. Changing between the two costs nothing that can be measured.
const (
	smallBuffer = 8 << 10
	largeBuffer = 64 << 10
)

// bufferPool hands out buffers of one size.
type bufferPool struct{ pool sync.Pool }

func newBufferPool(size int) *bufferPool {
	return &bufferPool{sync.Pool{New: func() any {
		b := make([]byte, size)
		return &b
	}}}
}

func (p *bufferPool) get() *[]byte  { return p.pool.Get().(*[]byte) }
func (p *bufferPool) put(b *[]byte) { p.pool.Put(b) }

var (
	smallBuffers = newBufferPool(smallBuffer)
	largeBuffers = newBufferPool(largeBuffer)
)

// pump copies src to dst until src ends, and tells carried of each piece. The
// errors of both ends are kept apart, since they call for different things;
// the end of src is not an error.
func pump(dst io.Writer, src io.Reader, carried func(n int)) (readErr, writeErr error) {
	return pumpWith(smallBuffers, largeBuffers, dst, src, carried)
}

// pumpWith takes a large buffer while src fills what it is given, and goes
// back to a small one when it does not, for then the next Read may block long.
func pumpWith(small, large *bufferPool, dst io.Writer, src io.Reader, carried func(n int)) (readErr, writeErr error) {
	pool := small
	buf := pool.get()
	defer func() { pool.put(buf) }()
	for {
		n, err := src.Read(*buf)
		if n > 0 {
			written, writeErr := dst.Write((*buf)[:n])
			if written > 0 {
				carried(written)
			}
			if writeErr == nil && written < n {
				writeErr = io.ErrShortWrite
			}
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
		next := small
		if n == len(*buf) {
			next = large
		}
		if next != pool {
			pool.put(buf)
			pool, buf = next, next.get()
		}
	}
}

// copyOut copies the local client's stream to the remote side.
func (c *conn) copyOut() (readErr, writeErr error) {
	carried := func(n int) { c.app.counters.sent.Add(uint64(n)) }
	to, ok := c.remote.(io.ReaderFrom)
	if !ok || isSocket(c.remote) {
		return pump(c.remote, c.local, carried)
	}
	from := &meteredReader{src: c.local, carried: carried}
	if _, err := to.ReadFrom(from); err != nil && from.err == nil {
		return nil, err
	}
	return from.err, nil
}

// copyIn copies the remote side's stream to the local client, and says whether
// a byte of it came.
func (c *conn) copyIn() (answered bool, readErr, writeErr error) {
	carried := func(n int) {
		c.app.counters.received.Add(uint64(n))
		if !answered {
			answered = true
			c.forward.works()
		}
	}
	from, ok := c.remote.(io.WriterTo)
	if !ok || isSocket(c.remote) {
		readErr, writeErr = pump(c.local, c.remote, carried)
		return answered, readErr, writeErr
	}
	to := &meteredWriter{dst: c.local, carried: carried}
	if _, err := from.WriteTo(to); err != nil && to.err == nil {
		return answered, err, nil
	}
	return answered, nil, to.err
}

// isSocket reports whether c is a plain socket, whose ReadFrom and WriteTo
// would take a buffer that is not pooled.
func isSocket(c net.Conn) bool {
	_, ok := c.(*net.TCPConn)
	return ok
}

// meteredReader and meteredWriter are the local side as a tunnel's own ReadFrom
// or WriteTo sees it: they count as it goes, not at the end, and tell whose
// error it was.
type meteredReader struct {
	src     io.Reader
	carried func(n int)
	err     error
}

func (r *meteredReader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	if n > 0 {
		r.carried(n)
	}
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

type meteredWriter struct {
	dst     io.Writer
	carried func(n int)
	err     error
}

func (w *meteredWriter) Write(p []byte) (int, error) {
	n, err := w.dst.Write(p)
	if n > 0 {
		w.carried(n)
	}
	if err != nil {
		w.err = err
	}
	return n, err
}
