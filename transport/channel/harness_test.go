package channel

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
)

// The tests run in synctest bubbles: HTTP and WebSockets are real, the network
// is net.Pipe and time is the bubble's, so that what takes a minute takes none
// and every moment can be asserted exactly.

// network joins clients to a handler, for as long as it is up.
type network struct {
	server   *http.Server
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once

	mu    sync.Mutex
	down  bool
	dials []time.Time
	addrs []string
	conns []net.Conn
}

var errNetworkDown = errors.New("the network is down")

func newNetwork(t *testing.T, handler http.HandlerFunc) *network {
	n := &network{accepted: make(chan net.Conn), closed: make(chan struct{})}
	var served sync.WaitGroup
	n.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1) // the server itself does not wait for those that it has handed over
		defer served.Done()
		handler(w, r)
	})}
	served.Go(func() { _ = n.server.Serve(n) })
	t.Cleanup(func() {
		_ = n.server.Close()
		n.cut()
		served.Wait()
	})
	return n
}

// Accept, Close and Addr make it the server's listener.
func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.accepted:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

func (n *network) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// dial is the clients' DialContext.
func (n *network) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.dials = append(n.dials, time.Now())
	n.addrs = append(n.addrs, addr)
	down := n.down
	n.mu.Unlock()
	if down {
		return nil, errNetworkDown
	}
	ours, theirs := net.Pipe()
	select {
	case n.accepted <- theirs:
	case <-n.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	n.conns = append(n.conns, ours, theirs)
	n.mu.Unlock()
	return ours, nil
}

// setDown cuts every connection and lets no new one through, or does again.
func (n *network) setDown(down bool) {
	n.mu.Lock()
	n.down = down
	n.mu.Unlock()
	if down {
		n.cut()
	}
}

// cut breaks every connection.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		_ = c.Close()
	}
	n.conns = nil
}

// attempts are the delays between the dials.
func (n *network) attempts() []time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	var delays []time.Duration
	for i := 1; i < len(n.dials); i++ {
		delays = append(delays, n.dials[i].Sub(n.dials[i-1]))
	}
	return delays
}

func (n *network) dialled() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.dials)
}

// coordinator is a handler with the server half behind it.
type coordinator struct {
	t       *testing.T
	opts    ServerOptions
	handler func(ctx context.Context, c *ServerConn, m events.ChannelMessage)
	// conns has each connection that was welcomed, ends how its Run ended.
	conns chan *ServerConn
	ends  chan error
}

func newCoordinator(t *testing.T) *coordinator {
	return &coordinator{
		t:       t,
		opts:    ServerOptions{Hello: welcomeAll, Organization: "org", Metrics: new(Metrics)},
		handler: func(context.Context, *ServerConn, events.ChannelMessage) {},
		conns:   make(chan *ServerConn, 64),
		ends:    make(chan error, 64),
	}
}

func welcomeAll(context.Context, *events.SessionHello) (*events.SessionWelcome, *events.SessionReject) {
	return &events.SessionWelcome{SessionID: "session"}, nil
}

func (co *coordinator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := Accept(w, r, co.opts)
	if err != nil {
		co.ends <- err
		return
	}
	co.conns <- c
	co.ends <- c.Run(context.Background(), func(ctx context.Context, m events.ChannelMessage) { co.handler(ctx, c, m) })
}

// running is a client whose Run is under way.
type running struct {
	*Client
	cancel context.CancelFunc
	ended  chan struct{}
	err    error
}

// start runs a client on the network; it is stopped at the test's end.
func start(t *testing.T, n *network, change func(*Options)) *running {
	t.Helper()
	opts := Options{
		URL:         func(context.Context) (string, error) { return "http://coordinator/channel", nil },
		Token:       func(context.Context, bool) (string, error) { return "token", nil },
		Hello:       events.SessionHello{AgentID: "agent", Version: "1.0"},
		Rand:        func() float64 { return 0 },
		DialContext: n.dial,
	}
	if change != nil {
		change(&opts)
	}
	c, err := New(opts)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Client: c, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.err = c.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.ended
	})
	return r
}

// wait waits for the end of Run and gives its error.
func (r *running) wait() error {
	<-r.ended
	return r.err
}

// states notes what a client says of its connection.
type states struct {
	mu   sync.Mutex
	list []State
}

func (s *states) note(state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, state)
}

// down are the states without a connection, so far.
func (s *states) down() []State {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.list), func(s State) bool { return s.Connected })
}

// rawAgent is an agent that speaks plain WebSocket, to do what a client of ours
// never would.
func rawAgent(t *testing.T, n *network) *websocket.Conn {
	t.Helper()
	d := websocket.Dialer{NetDialContext: n.dial}
	ws, _, err := d.Dial("ws://coordinator/channel", nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ws.Close() })
	return ws
}

// rawServer is a handler that speaks plain WebSocket.
func rawServer(t *testing.T, serve func(ws *websocket.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.Close()
		serve(ws)
	}
}

// say writes a message as it is.
func say(t *testing.T, ws *websocket.Conn, m events.ChannelMessage) {
	t.Helper()
	wire, err := events.EncodeChannelMessage(m)
	require.NoError(t, err)
	require.NoError(t, ws.WriteMessage(websocket.TextMessage, wire))
}

// hear reads the next message.
func hear(ws *websocket.Conn) (events.ChannelMessage, error) {
	_, b, err := ws.ReadMessage()
	if err != nil {
		return nil, err
	}
	return events.DecodeChannelMessage(b)
}

// welcomeRaw takes the hello, welcomes, and takes what a client asks on each
// connect.
func welcomeRaw(ws *websocket.Conn) error {
	if _, err := hear(ws); err != nil {
		return err
	}
	wire, err := events.EncodeChannelMessage(&events.SessionWelcome{SessionID: "session"})
	if err != nil {
		return err
	}
	if err := ws.WriteMessage(websocket.TextMessage, wire); err != nil {
		return err
	}
	for range 2 {
		if _, err := hear(ws); err != nil {
			return err
		}
	}
	return nil
}

// drain reads until the connection ends and gives its error.
func drain(ws *websocket.Conn) error {
	for {
		if _, _, err := ws.ReadMessage(); err != nil {
			return err
		}
	}
}

func logs(seqs ...uint64) *events.AgentLogs {
	m := new(events.AgentLogs)
	for _, seq := range seqs {
		m.Entries = append(m.Entries, events.AgentLogEntry{Seq: seq, CreatedAt: time.Now().UTC(), Level: events.LogInfo, Output: "line"})
	}
	return m
}
