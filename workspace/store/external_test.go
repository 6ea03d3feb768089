package store

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// startExternal starts a server that listens on loopback, and returns its address.
func startExternal(t *testing.T, dir string) (*server.Server, string) {
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: dir,
	})
	require.NoError(t, err)
	srv.Start()
	t.Cleanup(func() { stopServer(srv) })
	require.True(t, srv.ReadyForConnections(patience))
	return srv, srv.Addr().String()
}

// link is a way to a server that can be cut.
type link struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	target string // "" while it is cut
	conns  map[net.Conn]struct{}
}

func startLink(t *testing.T, target string) *link {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &link{listener: listener, target: target, conns: make(map[net.Conn]struct{})}
	l.wg.Go(l.serve)
	t.Cleanup(func() {
		_ = listener.Close()
		l.set("")
		l.wg.Wait()
	})
	return l
}

func (l *link) url() string { return "nats://" + l.listener.Addr().String() }

// set cuts the link and, unless target is "", makes it lead there.
func (l *link) set(target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = target
	for conn := range l.conns {
		_ = conn.Close()
	}
	clear(l.conns)
}

func (l *link) serve() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		far, err := net.Dial("tcp", l.target)
		if l.target == "" || err != nil {
			_ = near.Close()
			l.mu.Unlock()
			continue
		}
		l.conns[near], l.conns[far] = struct{}{}, struct{}{}
		l.mu.Unlock()
		l.wg.Go(func() { pipe(near, far) })
		l.wg.Go(func() { pipe(far, near) })
	}
}

func pipe(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func TestSeveralStoresShareAnExternalServer(t *testing.T) {
	_, addr := startExternal(t, t.TempDir())
	one := openDocs(t, openTest(t, Options{URL: "nats://" + addr}), "b")
	two := openDocs(t, openTest(t, Options{URL: "nats://" + addr}), "b")
	cache := openCache(t, two)
	e, err := one.Create(testContext(t), "k", doc{Count: 1})
	require.NoError(t, err)
	require.NoError(t, cache.WaitRevision(testContext(t), e.Revision))
	_, err = two.Update(testContext(t), "k", doc{Count: 2}, e.Revision)
	require.NoError(t, err)
	_, err = one.Update(testContext(t), "k", doc{Count: 3}, e.Revision)
	require.ErrorIs(t, err, ErrConflict)

	lines := make(chan string)
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r := range openLog(t, two.store, "l").Follow(ctx, 0) {
			lines <- r.Output
		}
	}()
	appendLines(t, openLog(t, one.store, "l"), "x")
	require.Equal(t, "x", <-lines)
	cancel()
	wait(t, done)
	require.NoError(t, one.store.Ready(testContext(t)))
}

func TestNothingIsLostWhileTheConnectionIs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv, addr := startExternal(t, dir)
	link := startLink(t, addr)
	there := openTest(t, Options{URL: "nats://" + addr})
	here := openTest(t, Options{URL: link.url()})
	bucket := openDocs(t, there, "b")
	for _, key := range []string{"kept", "changed", "deleted", "purged"} {
		put(t, bucket, key, 1)
	}
	cache := openCache(t, openDocs(t, here, "b"))
	sub := cache.SubscribeAll()
	lines := make(chan string, 100)
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r, err := range openLog(t, here, "l").Follow(ctx, 0) {
			if err != nil {
				lines <- err.Error()
			}
			lines <- r.Output
		}
	}()
	appendLines(t, openLog(t, there, "l"), "before")
	require.Equal(t, "before", <-lines)

	link.set("")
	changed := put(t, bucket, "changed", 2)
	put(t, bucket, "new", 1)
	remove(t, bucket, "deleted")
	remove(t, bucket, "purged") // and without a trace
	require.NoError(t, bucket.stream.Purge(testContext(t), jetstream.WithPurgeSubject("$KV.b.purged")))
	for i := range 10 {
		appendLines(t, openLog(t, there, "l"), fmt.Sprint(i))
	}
	require.Empty(t, sub.Take(), "the link is cut")
	link.set(addr)

	require.NoError(t, cache.WaitRevision(testContext(t), changed+3))
	require.ElementsMatch(t, []string{"changed", "new", "deleted", "purged"}, sub.Take())
	var keys []string
	for _, e := range cache.List() {
		keys = append(keys, fmt.Sprintf("%s=%d", e.Key, e.Value.Count))
	}
	require.Equal(t, []string{"changed=2", "kept=1", "new=1"}, keys)
	for i := range 10 {
		require.Equal(t, fmt.Sprint(i), <-lines)
	}

	// A server that comes back elsewhere, with the same data.
	require.NoError(t, there.Close())
	link.set("")
	stopServer(srv)
	_, addr = startExternal(t, dir)
	link.set(addr)
	there = openTest(t, Options{URL: "nats://" + addr})
	require.NoError(t, cache.WaitRevision(testContext(t), put(t, openDocs(t, there, "b"), "changed", 3)))
	require.Equal(t, []string{"changed"}, sub.Take())
	appendLines(t, openLog(t, there, "l"), "after")
	require.Equal(t, "after", <-lines)
	cancel()
	wait(t, done)

	// Closing does not wait for a server that is gone.
	link.set("")
	start := time.Now()
	require.NoError(t, here.Close())
	require.Less(t, time.Since(start), 3*time.Second)
}

func TestAnExternalServerOfAnotherFormatIsRefused(t *testing.T) {
	_, addr := startExternal(t, t.TempDir())
	s := openTest(t, Options{URL: "nats://" + addr})
	config := s.logs.CachedInfo().Config
	config.Metadata = nil
	_, err := s.js.UpdateStream(testContext(t), config)
	require.NoError(t, err)
	_, err = Open(testContext(t), Options{URL: "nats://" + addr})
	require.ErrorIs(t, err, ErrIncompatible)
	require.ErrorContains(t, err, `stream LOGS has store format "", this version works with format 1`)
}

func TestAServerThatGoesAwayIsNotReady(t *testing.T) {
	srv, addr := startExternal(t, t.TempDir())
	s := openTest(t, Options{URL: "nats://" + addr})
	require.NoError(t, s.Ready(testContext(t)))
	stopServer(srv)
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	require.Error(t, s.Ready(ctx))
}
