package forward

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// randomBytes are the same bytes for the same seed, and others for each seed.
func randomBytes(seed uint64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

func TestTwoHundredConnectionsAtOnceCarryTheirOwnBytes(t *testing.T) {
	const conns, size = 200, 100_003
	far := newFarSide(t)
	far.serve(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	a := start(t, far, Options{})
	var wg sync.WaitGroup
	errs := make(chan error, conns)
	for seed := range uint64(conns) {
		wg.Go(func() { errs <- echo(a.Forwards()[0].LocalURLHost, seed, size) })
	}
	wg.Wait()
	for range conns {
		require.NoError(t, <-errs)
	}
	require.Equal(t, Stats{Accepted: conns, Completed: conns, Failed: map[Reason]uint64{}, Sent: conns * size, Received: conns * size},
		settled(t, a))
}

// echo sends bytes while it reads them back, and compares.
func echo(address string, seed uint64, size int64) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(c, randomBytes(seed), size)
		if err == nil {
			err = c.(*net.TCPConn).CloseWrite()
		}
		sent <- err
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	want, _ := io.ReadAll(io.LimitReader(randomBytes(seed), size))
	if !bytes.Equal(want, got) {
		return fmt.Errorf("connection %d: %d bytes came back and are not those that were sent", seed, len(got))
	}
	return <-sent
}

func TestALargeTransferArrivesWhole(t *testing.T) {
	const size = 64 << 20
	for _, way := range []string{"up", "down"} {
		t.Run(way, func(t *testing.T) {
			far := newFarSide(t)
			a := start(t, far, Options{})
			client := connect(t, a)
			server := far.accept(t)
			from, to := client, server
			if way == "down" {
				from, to = server, client
			}
			wrote := make(chan error, 1)
			want := sha256.New()
			go func() {
				_, err := io.CopyN(io.MultiWriter(from, want), randomBytes(1), size)
				_ = from.CloseWrite()
				wrote <- err
			}()
			got := sha256.New()
			requireCopied(t, got, to, size)
			require.NoError(t, <-wrote)
			require.Equal(t, want.Sum(nil), got.Sum(nil))
		})
	}
}

func requireCopied(t *testing.T, to hash.Hash, from io.Reader, size int64) {
	t.Helper()
	n, err := io.Copy(to, from)
	require.NoError(t, err)
	require.Equal(t, size, n)
}

// A reader that does not read holds up its own connection and no other.
func TestASlowReaderHoldsUpNobodyElse(t *testing.T) {
	far := newFarSide(t)
	far.serve(t, func(c *net.TCPConn) {
		first := make([]byte, 1)
		if _, err := io.ReadFull(c, first); err == nil && first[0] == 'b' {
			blast(c, 1<<40)
			return
		}
		_, _ = c.Write(first)
	})
	a := start(t, far, Options{})
	slow := connect(t, a)
	write(t, slow, "b")
	// Once as much has come as the buffers on the way take, no more does.
	stalled := uint64(0)
	require.Eventually(t, func() bool {
		before := stalled
		stalled = a.Stats().Received
		return stalled > 0 && stalled == before
	}, 20*time.Second, 50*time.Millisecond)
	client := connect(t, a)
	write(t, client, "x")
	read(t, client, "x")
	reset(slow)
}

func TestAConnectionTakesTwoGoroutines(t *testing.T) {
	const conns = 50
	bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		a.Attach(tunnel)
		synctest.Wait()
		before := goroutinesInBubble()
		for range conns {
			l.connect()
			<-tunnel.far
		}
		synctest.Wait()
		require.Equal(t, before+2*conns, goroutinesInBubble())
	})
}

// goroutinesInBubble counts the goroutines of the one bubble there is.
func goroutinesInBubble() int {
	all := make([]byte, 4<<20)
	return strings.Count(string(all[:runtime.Stack(all, true)]), ", synctest bubble ")
}
