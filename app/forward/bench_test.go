package forward

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkThroughput sends bytes one way: straight to a server on loopback,
// and through an App whose tunnel is a TCP connection to it, which is one more
// hop and one more copy.
func BenchmarkThroughput(b *testing.B) {
	for _, path := range []string{"direct", "forward"} {
		for _, way := range []string{"up", "down"} {
			b.Run(path+"/"+way, func(b *testing.B) { throughput(b, path == "forward", way == "up") })
		}
	}
}

const chunk = 1 << 20

func throughput(b *testing.B, forwarded, up bool) {
	far := newFarSide(b)
	total := int64(b.N) * chunk
	far.serve(b, func(c *net.TCPConn) {
		if up {
			_, _ = io.Copy(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c})
			return
		}
		blast(c, total)
	})
	c := benchConn(b, far, forwarded)
	b.SetBytes(chunk)
	b.ResetTimer()
	if up {
		blast(c, total)
		_ = c.CloseWrite()
	}
	buf := make([]byte, 256<<10)
	n := int64(0)
	for {
		m, err := c.Read(buf)
		if n += int64(m); err != nil {
			require.Equal(b, io.EOF, err)
			break
		}
	}
	if !up {
		require.Equal(b, total, n)
	}
}

func blast(c net.Conn, total int64) {
	buf := make([]byte, 256<<10)
	for total > 0 {
		n, err := c.Write(buf[:min(int64(len(buf)), total)])
		if err != nil {
			return
		}
		total -= int64(n)
	}
}

// benchConn connects to far, through an App or not.
func benchConn(b *testing.B, far *farSide, forwarded bool) *net.TCPConn {
	if forwarded {
		return connect(b, start(b, far, Options{}))
	}
	c, err := net.Dial("tcp4", far.Addr().String())
	require.NoError(b, err)
	b.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// BenchmarkRoundTrip is a small request and answer on a connection that is
// open, and on one that is opened for it.
func BenchmarkRoundTrip(b *testing.B) {
	echo := func(c *net.TCPConn) {
		buf := make([]byte, 128)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			_, _ = c.Write(buf[:n])
		}
	}
	ask := func(b *testing.B, c net.Conn, buf []byte) {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
	for _, path := range []string{"direct", "forward"} {
		b.Run(path+"/open connection", func(b *testing.B) {
			far := newFarSide(b)
			far.serve(b, echo)
			c := benchConn(b, far, path == "forward")
			buf := make([]byte, 128)
			b.ReportAllocs()
			for b.Loop() {
				ask(b, c, buf)
			}
		})
		b.Run(path+"/new connection", func(b *testing.B) {
			far := newFarSide(b)
			far.serve(b, echo)
			address := far.Addr().String()
			if path == "forward" {
				address = start(b, far, Options{}).Forwards()[0].LocalURLHost
			}
			buf := make([]byte, 128)
			b.ReportAllocs()
			for b.Loop() {
				c, err := net.Dial("tcp4", address)
				if err != nil {
					b.Fatal(err)
				}
				ask(b, c, buf)
				_ = c.(*net.TCPConn).SetLinger(0) // lest the ports run out
				_ = c.Close()
			}
		})
	}
}

// BenchmarkConnection is what the App itself allocates for one connection,
// with everything below it in memory.
func BenchmarkConnection(b *testing.B) {
	l := newFakeListener(1)
	a := start(b, nil, Options{listen: l.listen})
	a.Attach(readyTunnel{})
	b.ReportAllocs()
	for b.Loop() {
		ended := make(chan struct{})
		l.next <- func() (net.Conn, error) { return &endedConn{closed: ended}, nil }
		<-ended
	}
}

// BenchmarkIdle reports what one open connection with nothing to carry holds,
// after it has carried a large answer.
func BenchmarkIdle(b *testing.B) {
	const conns = 200
	far := newFarSide(b)
	far.serve(b, func(c *net.TCPConn) {
		blast(c, chunk)
		_, _ = c.Read(make([]byte, 1))
	})
	a := start(b, far, Options{})
	for b.Loop() {
		runtime.GC()
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		opened := make([]net.Conn, conns)
		sink := make([]byte, 64<<10)
		for i := range opened {
			opened[i] = connect(b, a)
			for left := chunk; left > 0; {
				n, err := opened[i].Read(sink)
				require.NoError(b, err)
				left -= n
			}
		}
		runtime.GC()
		runtime.GC() // twice: a pool keeps what it holds for one cycle more
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/conns, "B/conn")
		for _, c := range opened {
			_ = c.Close()
		}
		require.Eventually(b, func() bool { return a.Stats().Active == 0 }, 10*time.Second, time.Millisecond)
	}
}

// BenchmarkBufferSize copies between loopback sockets with one buffer size,
// and with pump's two.
func BenchmarkBufferSize(b *testing.B) {
	run := func(name string, small, large int) {
		b.Run(name, func(b *testing.B) {
			smalls, larges := newBufferPool(small), newBufferPool(large)
			source, sink := newFarSide(b), newFarSide(b)
			total := int64(b.N) * chunk
			source.serve(b, func(c *net.TCPConn) { blast(c, total) })
			sink.serve(b, func(c *net.TCPConn) {
				buf := make([]byte, 256<<10)
				for {
					if _, err := c.Read(buf); err != nil {
						return
					}
				}
			})
			from, to := benchConn(b, source, false), benchConn(b, sink, false)
			b.SetBytes(chunk)
			b.ResetTimer()
			readErr, writeErr := pumpWith(smalls, larges, to, from, func(int) {})
			require.NoError(b, readErr)
			require.NoError(b, writeErr)
		})
	}
	for _, kib := range []int{8, 16, 32, 64, 128, 256} {
		run(fmt.Sprintf("%dKiB", kib), kib<<10, kib<<10)
	}
	for _, kib := range []int{64, 128, 256} {
		run(fmt.Sprintf("8KiB and %dKiB", kib), 8<<10, kib<<10)
	}
}

// readyTunnel gives connections that have ended already.
type readyTunnel struct{}

func (readyTunnel) DialContext(context.Context, string, string) (net.Conn, error) {
	return &endedConn{}, nil
}

// endedConn is at its end from the beginning.
type endedConn struct {
	net.Conn
	closed chan struct{}
}

func (c *endedConn) Read([]byte) (int, error)    { return 0, io.EOF }
func (c *endedConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *endedConn) CloseWrite() error           { return nil }
func (c *endedConn) SetLinger(int) error         { return nil }
func (c *endedConn) SetDeadline(time.Time) error { return nil }
func (c *endedConn) Close() error {
	if c.closed != nil {
		close(c.closed)
	}
	return nil
}
