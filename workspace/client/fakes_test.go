package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tunneler/tunneler/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipes is a network of one listener, whose connections are net.Pipes.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

var errRefused = errors.New("connection refused")

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.closed:
		return nil, errRefused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// serve runs h on a new network until the test ends, and gives a client of it.
// The server's name is not a loopback one unless base says so.
func serve(t testing.TB, base string, h http.HandlerFunc) *Client {
	net := newPipes()
	srv := &http.Server{Handler: h}
	var done sync.WaitGroup
	done.Go(func() { _ = srv.Serve(net) })
	c := New(FixedURL(base), StaticToken("secret"), Options{
		DialContext: net.DialContext, Random: func() float64 { return 0 },
	})
	t.Cleanup(func() {
		c.Close()
		require.NoError(t, srv.Close())
		done.Wait()
	})
	return c
}

// watchServer upgrades a request and gives the server's end of the watch.
func watchServer(t testing.TB, w http.ResponseWriter, r *http.Request) *fakeWatch {
	conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
	require.NoError(t, err)
	return &fakeWatch{t: t, Conn: conn}
}

type fakeWatch struct {
	t testing.TB
	*websocket.Conn
}

func (f *fakeWatch) send(m events.WatchMessage) {
	b, err := events.EncodeWatchMessage(m)
	require.NoError(f.t, err)
	require.NoError(f.t, f.WriteMessage(websocket.TextMessage, b))
}

func (f *fakeWatch) buildLog(id int64) {
	f.send(events.WatchMessage{BuildLog: &events.Log{ID: id, Output: "line"}})
}

// wait returns when the client has gone.
func (f *fakeWatch) wait() {
	for {
		if _, _, err := f.ReadMessage(); err != nil {
			f.Close()
			return
		}
	}
}
