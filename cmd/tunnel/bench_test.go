package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
)

// The benchmarks run the real program and, in the same run, the limits beside
// which its figures mean something: the same client straight at the service, a
// plain quic-go stream and a plain TLS 1.3 stream over loopback. `make bench`
// runs them; docs/benchmarks.md holds the table.

// BenchmarkUp is the time from the start of `tunnel up` to the first byte of
// an answer through the forward, against a running server.
func BenchmarkUp(b *testing.B) {
	for _, warm := range []bool{true, false} {
		name := map[bool]string{true: "workspace=running", false: "workspace=stopped"}[warm]
		b.Run(name, func(b *testing.B) {
			h := newHost(b)
			server := h.serve()
			h.mustRun("workspaces", "create", "demo", "--server", server)
			h.mustRun("workspaces", "start", "demo", "--server", server)
			var total time.Duration
			for b.Loop() {
				if !warm {
					b.StopTimer()
					h.mustRun("workspaces", "stop", "demo", "--server", server)
					b.StartTimer()
				}
				began := time.Now()
				up := h.up("demo", "-p", "0:3000", "--server", server)
				resp, err := http.Get("http://" + up.awaitReady() + "/healthz")
				require.NoError(b, err)
				total += time.Since(began)
				b.StopTimer()
				resp.Body.Close()
				up.signal(os.Interrupt)
				require.Zero(b, up.exit())
				b.StartTimer()
			}
			b.ReportMetric(float64(total.Milliseconds())/float64(b.N), "ms/first-byte")
			h.mustRun("workspaces", "stop", "demo", "--server", server)
		})
	}
}

// BenchmarkThroughput is one stream of bulk data.
func BenchmarkThroughput(b *testing.B) {
	const size = 256 << 20
	over := func(name string, url string) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				resp, err := http.Get(fmt.Sprintf("%s/download?size=%d", url, size))
				require.NoError(b, err)
				n, err := io.Copy(io.Discard, resp.Body)
				require.NoError(b, err)
				resp.Body.Close()
				require.EqualValues(b, size, n)
			}
		})
	}
	over("straight-to-the-service", serveDemo(b))
	tunnelURL := benchTunnel(b)
	over("through-the-tunnel", tunnelURL)
	streamOver(b, "quic-go-stream", quicPair, size)
	streamOver(b, "tls-stream", tlsPair, size)
}

// BenchmarkLatency is a small request over a kept connection.
func BenchmarkLatency(b *testing.B) {
	over := func(name, url string) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				resp, err := http.Get(url + "/healthz")
				require.NoError(b, err)
				_, err = io.Copy(io.Discard, resp.Body)
				require.NoError(b, err)
				resp.Body.Close()
			}
		})
	}
	over("straight-to-the-service", serveDemo(b))
	over("through-the-tunnel", benchTunnel(b))
	pingOver(b, "quic-go-stream", quicPair)
	pingOver(b, "tls-stream", tlsPair)
}

// BenchmarkConnect is a small request over a new connection each.
func BenchmarkConnect(b *testing.B) {
	over := func(name, url string) {
		b.Run(name, func(b *testing.B) {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			for b.Loop() {
				resp, err := client.Get(url + "/healthz")
				require.NoError(b, err)
				_, err = io.Copy(io.Discard, resp.Body)
				require.NoError(b, err)
				resp.Body.Close()
			}
		})
	}
	over("straight-to-the-service", serveDemo(b))
	over("through-the-tunnel", benchTunnel(b))
}

// benchTunnel brings a tunnel to the demo workspace up for the benchmark.
func benchTunnel(b *testing.B) string {
	h := newHost(b)
	up := h.up("demo", "-p", "0:3000")
	return "http://" + up.awaitReady()
}

// serveDemo runs the same service on a TCP port, without a tunnel.
func serveDemo(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	addr := l.Addr().String()
	l.Close()
	cmd := exec.Command(tunnelBinary, "demo-service", "--listen", addr)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	require.Eventually(b, func() bool {
		resp, err := http.Get("http://" + addr + "/healthz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return true
	}, patience, time.Millisecond)
	return "http://" + addr
}

type stream interface {
	io.ReadWriteCloser
}

// pair makes the two ends of a plain encrypted stream over loopback; the far
// end is handed to serve.
type pair func(b *testing.B, serve func(stream)) stream

func streamOver(b *testing.B, name string, connect pair, size int64) {
	b.Run(name, func(b *testing.B) {
		block := make([]byte, 128<<10)
		near := connect(b, func(s stream) {
			request := make([]byte, 1)
			for {
				if _, err := io.ReadFull(s, request); err != nil {
					return
				}
				for sent := int64(0); sent < size; sent += int64(len(block)) {
					if _, err := s.Write(block); err != nil {
						return
					}
				}
			}
		})
		b.SetBytes(size)
		for b.Loop() {
			_, err := near.Write([]byte{1})
			require.NoError(b, err)
			_, err = io.CopyN(io.Discard, near, size)
			require.NoError(b, err)
		}
	})
}

// pingOver sends about as much as a small HTTP request and its answer.
func pingOver(b *testing.B, name string, connect pair) {
	b.Run(name, func(b *testing.B) {
		near := connect(b, func(s stream) {
			buf := make([]byte, 100)
			for {
				if _, err := io.ReadFull(s, buf); err != nil {
					return
				}
				if _, err := s.Write(buf); err != nil {
					return
				}
			}
		})
		buf := make([]byte, 100)
		r := bufio.NewReader(near)
		for b.Loop() {
			_, err := near.Write(buf)
			require.NoError(b, err)
			_, err = io.ReadFull(r, buf)
			require.NoError(b, err)
		}
	})
}

func quicPair(b *testing.B, serve func(stream)) stream {
	b.Helper()
	conf := benchTLS(b)
	l, err := quic.ListenAddr("127.0.0.1:0", conf, nil)
	require.NoError(b, err)
	b.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept(context.Background())
		if err != nil {
			return
		}
		if s, err := c.AcceptStream(context.Background()); err == nil {
			serve(s)
		}
	}()
	c, err := quic.DialAddr(context.Background(), l.Addr().String(), trusting(conf), nil)
	require.NoError(b, err)
	b.Cleanup(func() { _ = c.CloseWithError(0, "") })
	s, err := c.OpenStreamSync(context.Background())
	require.NoError(b, err)
	return s
}

func tlsPair(b *testing.B, serve func(stream)) stream {
	b.Helper()
	conf := benchTLS(b)
	l, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	require.NoError(b, err)
	b.Cleanup(func() { l.Close() })
	go func() {
		if c, err := l.Accept(); err == nil {
			serve(c)
			c.Close()
		}
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), trusting(conf))
	require.NoError(b, err)
	b.Cleanup(func() { c.Close() })
	return c
}

func benchTLS(b *testing.B) *tls.Config {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(b, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(b, err)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MinVersion:   tls.VersionTLS13, NextProtos: []string{"bench"},
	}
}

// trusting is the client's side: it trusts that very certificate.
func trusting(server *tls.Config) *tls.Config {
	cert, err := x509.ParseCertificate(server.Certificates[0].Certificate[0])
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{RootCAs: pool, ServerName: "bench", MinVersion: tls.VersionTLS13, NextProtos: []string{"bench"}}
}

// serve runs `tunnel serve` beside a benchmark or test and returns its URL.
func (h *host) serve(args ...string) string {
	h.t.Helper()
	url, _ := h.serveProcess("127.0.0.1:0", args...)
	return url
}

// serveProcess is serve on a given address, with the process.
func (h *host) serveProcess(listen string, args ...string) (url string, p *process) {
	h.t.Helper()
	p = h.start(append([]string{"serve", "--listen", listen}, args...)...)
	require.Eventually(h.t, func() bool {
		_, rest, ok := strings.Cut(p.stderr.String(), "listening on ")
		if !ok {
			return false
		}
		url, _, ok = strings.Cut(rest, "\n")
		return ok
	}, patience, time.Millisecond, "the server does not say where it listens: %s", p.stderr)
	return strings.TrimSpace(url), p
}
