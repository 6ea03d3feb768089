package tailnet_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/transport/tailnet"
	"github.com/tunneler/tunneler/transport/tailnet/tailnettest"
)

// The benchmarks run over loopback, and beside the tailnet the two things that
// it is compared with in the same run: a plain quic-go stream, and a plain
// TLS 1.3 connection over TCP. Compare within a run only.

// carrier opens byte streams between two ends; open gives both ends of one.
type carrier struct {
	name string
	open func(b *testing.B) (client, server io.ReadWriteCloser)
}

func carriers(b *testing.B) []carrier {
	tunneler, agent := loopbackPair(b)
	qc, qs := quicPair(b)
	return []carrier{
		{"tailnet", func(b *testing.B) (io.ReadWriteCloser, io.ReadWriteCloser) {
			s, err := tunneler.Open(context.Background(), web)
			require.NoError(b, err)
			return s, serveOne(b, agent)
		}},
		{"quic", func(b *testing.B) (io.ReadWriteCloser, io.ReadWriteCloser) {
			s, err := qc.OpenStream()
			require.NoError(b, err)
			_, err = s.Write([]byte{0})
			require.NoError(b, err)
			peer, err := qs.AcceptStream(context.Background())
			require.NoError(b, err)
			_, err = io.ReadFull(peer, make([]byte, 1))
			require.NoError(b, err)
			return s, peer
		}},
		{"tls", tlsPair},
	}
}

func serveOne(t testing.TB, agent *tailnet.Conn) *tailnet.Stream {
	in, err := agent.Accept(context.Background())
	require.NoError(t, err)
	_, err = in.Header()
	require.NoError(t, err)
	s, err := in.Accept()
	require.NoError(t, err)
	return s
}

// BenchmarkThroughput sends one stream of bulk data.
func BenchmarkThroughput(b *testing.B) {
	for _, c := range carriers(b) {
		b.Run(c.name, func(b *testing.B) {
			client, server := c.open(b)
			chunk := make([]byte, 128<<10)
			b.SetBytes(int64(len(chunk)))
			got := make(chan int64)
			go func() {
				n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{server}, make([]byte, 128<<10))
				got <- n
			}()
			b.ReportAllocs()
			sent := int64(0)
			for b.Loop() {
				_, err := client.Write(chunk)
				require.NoError(b, err)
				sent += int64(len(chunk))
			}
			closeWrite(client)
			require.Equal(b, sent, <-got)
			_ = server.Close()
			_ = client.Close()
		})
	}
}

// BenchmarkRoundTrip sends a small request and waits for as small an answer.
func BenchmarkRoundTrip(b *testing.B) {
	for _, c := range carriers(b) {
		b.Run(c.name, func(b *testing.B) {
			client, server := c.open(b)
			go func() {
				_, _ = io.CopyBuffer(struct{ io.Writer }{server}, struct{ io.Reader }{server}, make([]byte, 1<<10))
				_ = server.Close()
			}()
			request := make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				_, err := client.Write(request)
				require.NoError(b, err)
				_, err = io.ReadFull(client, request)
				require.NoError(b, err)
			}
			closeWrite(client)
			_ = client.Close()
		})
	}
}

// BenchmarkOpen opens a stream, sends a small request, reads the answer to its
// end and closes. Packets a stream, sent by the client, show that the header
// shares the first packet with the request.
func BenchmarkOpen(b *testing.B) {
	request := make([]byte, 64)
	b.Run("tailnet", func(b *testing.B) {
		tunneler, agent := loopbackPair(b)
		go func() {
			for {
				in, err := agent.Accept(context.Background())
				if err != nil {
					return
				}
				go func() {
					if _, err := in.Header(); err != nil {
						return
					}
					s, err := in.Accept()
					if err == nil {
						_, _ = io.ReadFull(s, make([]byte, len(request)))
						_, _ = s.Write(request)
						_ = s.Close()
					}
				}()
			}
		}()
		b.ReportAllocs()
		for b.Loop() {
			s, err := tunneler.Open(context.Background(), web)
			require.NoError(b, err)
			_, err = s.Write(request)
			require.NoError(b, err)
			_, err = io.ReadAll(s)
			require.NoError(b, err)
			_ = s.Close()
		}
		b.ReportMetric(float64(tunneler.Stats().PacketsSent)/float64(b.N), "packets/op")
	})
	b.Run("quic", func(b *testing.B) {
		client, server := quicPair(b)
		go func() {
			for {
				s, err := server.AcceptStream(context.Background())
				if err != nil {
					return
				}
				go func() {
					_, _ = io.ReadFull(s, make([]byte, len(request)))
					_, _ = s.Write(request)
					_ = s.Close()
					s.CancelRead(0)
				}()
			}
		}()
		b.ReportAllocs()
		for b.Loop() {
			s, err := client.OpenStreamSync(context.Background())
			require.NoError(b, err)
			_, err = s.Write(request)
			require.NoError(b, err)
			_, err = io.ReadAll(s)
			require.NoError(b, err)
			_ = s.Close()
			s.CancelRead(0)
		}
		b.ReportMetric(float64(client.ConnectionStats().PacketsSent)/float64(b.N), "packets/op")
	})
	b.Run("tls", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			client, server := tlsPair(b)
			go func() {
				_, _ = io.ReadFull(server, make([]byte, len(request)))
				_, _ = server.Write(request)
				_ = server.Close()
			}()
			_, err := client.Write(request)
			require.NoError(b, err)
			_, err = io.ReadAll(client)
			require.NoError(b, err)
			_ = client.Close()
		}
	})
}

// BenchmarkHandshake brings a connection up and takes it down, with each kind
// of key.
func BenchmarkHandshake(b *testing.B) {
	for _, kind := range []struct {
		name string
		make func() (*tailnet.Identity, error)
	}{
		{"ed25519", tailnet.NewIdentity},
		{"p256", func() (*tailnet.Identity, error) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return nil, err
			}
			return tailnet.IdentityOf(key)
		}},
	} {
		b.Run(kind.name, func(b *testing.B) {
			listener, err := tailnet.Listen(tailnet.ListenConfig{Addrs: []string{"127.0.0.1:0"}})
			require.NoError(b, err)
			defer listener.Close(context.Background())
			go func() {
				for {
					if _, err := listener.Accept(context.Background()); err != nil {
						return
					}
				}
			}()
			b.ReportAllocs()
			for b.Loop() {
				ours, err := kind.make()
				require.NoError(b, err)
				theirs, err := kind.make()
				require.NoError(b, err)
				require.NoError(b, listener.Expect(tailnet.Session{
					ID: "session", Identity: theirs, PeerKeyHash: ours.KeyHash(), Expires: time.Now().Add(time.Minute),
				}))
				c, err := tailnet.Dial(context.Background(), tailnet.DialConfig{
					SessionID: "session", Identity: ours, PeerKeyHash: theirs.KeyHash(), Candidates: listener.Candidates(),
				})
				require.NoError(b, err)
				_ = c.Close()
			}
		})
	}
}

// BenchmarkIdle brings up connections and leaves them alone. A connection's cost
// is that of both ends, with a socket of its own at the tunneler's.
func BenchmarkIdle(b *testing.B) {
	listener, err := tailnet.Listen(tailnet.ListenConfig{Addrs: []string{"127.0.0.1:0"}})
	require.NoError(b, err)
	defer listener.Close(context.Background())
	const conns = 200
	measure := func() (bytes uint64, goroutines int) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse, runtime.NumGoroutine()
	}
	for b.Loop() {
		bytes, goroutines := measure()
		var open []*tailnet.Conn
		for i := range conns {
			ours, theirs := tailnettest.Identity(b), tailnettest.Identity(b)
			id := "session-" + strconv.Itoa(i)
			require.NoError(b, listener.Expect(tailnet.Session{
				ID: id, Identity: theirs, PeerKeyHash: ours.KeyHash(), Expires: time.Now().Add(time.Minute),
			}))
			c, err := tailnet.Dial(context.Background(), tailnet.DialConfig{
				SessionID: id, Identity: ours, PeerKeyHash: theirs.KeyHash(), Candidates: listener.Candidates(),
			})
			require.NoError(b, err)
			_, err = listener.Accept(context.Background())
			require.NoError(b, err)
			open = append(open, c)
		}
		bytesNow, goroutinesNow := measure()
		b.ReportMetric(float64(bytesNow-bytes)/conns, "bytes/conn")
		b.ReportMetric(float64(goroutinesNow-goroutines)/conns, "goroutines/conn")
		for _, c := range open {
			_ = c.Close()
		}
	}
}
