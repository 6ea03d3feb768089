package agent

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

var errBroken = errors.New("broken")

func TestPumpTellsWhoseErrorItWas(t *testing.T) {
	var count atomic.Int64
	var out bytes.Buffer
	readErr, writeErr := pump(&out, bytes.NewReader(make([]byte, 200_000)), &count)
	require.NoError(t, errors.Join(readErr, writeErr))
	require.Equal(t, 200_000, out.Len())
	require.Equal(t, int64(200_000), count.Load())

	readErr, writeErr = pump(&out, io.MultiReader(bytes.NewReader([]byte("x")), iotest.ErrReader(errBroken)), &count)
	require.ErrorIs(t, readErr, errBroken)
	require.NoError(t, writeErr)
	require.Equal(t, int64(200_001), count.Load(), "what came before the error is carried")

	r, w := net.Pipe()
	r.Close()
	readErr, writeErr = pump(w, bytes.NewReader([]byte("x")), &count)
	require.NoError(t, readErr)
	require.ErrorIs(t, writeErr, io.ErrClosedPipe)
}

// BenchmarkPump shows what the size of the buffer is worth over loopback TCP,
// and that changing between two costs nothing: "adaptive" is what is used.
func BenchmarkPump(b *testing.B) {
	for _, c := range []struct {
		name string
		copy func(dst io.Writer, src io.Reader)
	}{
		{"4 KiB", func(dst io.Writer, src io.Reader) { copyWith(dst, src, smallBuffer) }},
		{"64 KiB", func(dst io.Writer, src io.Reader) { copyWith(dst, src, largeBuffer) }},
		{"adaptive", func(dst io.Writer, src io.Reader) {
			var n atomic.Int64
			_, _ = pump(dst, src, &n)
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			from, in := tcpPair(b)
			out, to := tcpPair(b)
			copied, drained := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(copied)
				c.copy(out, struct{ io.Reader }{in})
				out.Close()
			}()
			go func() {
				defer close(drained)
				copyWith(io.Discard, to, 256<<10)
			}()
			chunk := make([]byte, 256<<10)
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				_, err := from.Write(chunk)
				require.NoError(b, err)
			}
			from.Close()
			<-copied
			<-drained
			in.Close()
			to.Close()
		})
	}
}

func copyWith(dst io.Writer, src io.Reader, size int) {
	_, _ = io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, size))
}

func tcpPair(tb testing.TB) (client, server net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	require.NoError(tb, err)
	server, err = l.Accept()
	require.NoError(tb, err)
	return client, server
}
