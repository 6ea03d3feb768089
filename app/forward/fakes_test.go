package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
)

var (
	errReset   = errors.New("fake: reset by peer")
	errRefused = errors.New("fake: refused by the far side")
	errGone    = errors.New("fake: the tunnel is gone")
)

// dialFunc is a Dialer made of a function.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

func (f dialFunc) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}

// farSide is a tunnel whose far side is a TCP listener on loopback, whatever
// the target.
type farSide struct {
	net.Listener
}

func newFarSide(t testing.TB) *farSide {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return &farSide{l}
}

func (f *farSide) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp4", f.Addr().String())
}

// accept takes the next connection, as TCP.
func (f *farSide) accept(t testing.TB) *net.TCPConn {
	t.Helper()
	c, err := f.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// serve hands every connection to a handler of its own, and closes it after.
func (f *farSide) serve(t testing.TB, handle func(c *net.TCPConn)) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := f.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = f.Close()
		wg.Wait()
	})
}

// start starts an App for one forward of a chosen port, attached to d if that
// is not nil.
func start(t testing.TB, d Dialer, opts Options) *App {
	t.Helper()
	if opts.Forwards == nil {
		opts.Forwards = []Spec{{Bind: "127.0.0.1", RemotePort: 3000}}
	}
	a, err := Start(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(a.Abort)
	if d != nil {
		a.Attach(d)
	}
	return a
}

// connect dials the first forward of an App.
func connect(t testing.TB, a *App) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", a.Forwards()[0].LocalURLHost)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// connectRefused dials the first forward of an App that resets the connection,
// which may show at once or with the first Read.
func connectRefused(t testing.TB, a *App) {
	t.Helper()
	c, err := net.Dial("tcp", a.Forwards()[0].LocalURLHost)
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		_ = c.Close()
	}
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

// pipeConn is one end of an in-memory connection that can be half closed and
// reset. It blocks on channels alone, so that it may be used with synctest.
type pipeConn struct {
	in, out *oneWay

	mu     sync.Mutex
	codes  []events.CloseCode // of each Reset
	linger bool               // SetLinger(0) was called
}

// oneWay is one direction: what w writes r reads.
type oneWay struct {
	r, w net.Conn
	mu   sync.Mutex
	err  error // what both get once it is closed, nil: EOF
}

func newPipe() (*pipeConn, *pipeConn) {
	there, back := newOneWay(), newOneWay()
	return &pipeConn{in: back, out: there}, &pipeConn{in: there, out: back}
}

func newOneWay() *oneWay {
	r, w := net.Pipe()
	return &oneWay{r: r, w: w}
}

// end closes one half of a direction; err is what the other half gets.
func (d *oneWay) end(half net.Conn, err error) {
	d.mu.Lock()
	if d.err == nil {
		d.err = err
	}
	d.mu.Unlock()
	_ = half.Close()
}

// cause replaces the error of a closed pipe by that with which it was closed.
func (d *oneWay) cause(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe)) {
		return d.err
	}
	return err
}

func (c *pipeConn) Read(p []byte) (int, error) {
	n, err := c.in.r.Read(p)
	return n, c.in.cause(err)
}

func (c *pipeConn) Write(p []byte) (int, error) {
	n, err := c.out.w.Write(p)
	return n, c.out.cause(err)
}

func (c *pipeConn) CloseWrite() error { return c.out.w.Close() }

// failWrite ends the sending side with an error for the peer's Read.
func (c *pipeConn) failWrite(err error) { c.out.end(c.out.w, err) }

// stopReading makes the peer's Write fail, as QUIC's STOP_SENDING does.
func (c *pipeConn) stopReading() { c.in.end(c.in.r, errReset) }

func (c *pipeConn) Close() error {
	c.mu.Lock()
	linger := c.linger
	c.mu.Unlock()
	if linger {
		c.failWrite(errReset)
		c.stopReading()
	}
	_ = c.out.w.Close()
	_ = c.in.r.Close()
	return nil
}

func (c *pipeConn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.linger = sec == 0
	return nil
}

func (c *pipeConn) Reset(code events.CloseCode) {
	c.mu.Lock()
	c.codes = append(c.codes, code)
	c.mu.Unlock()
	c.failWrite(errReset)
	c.stopReading()
}

func (c *pipeConn) resetCodes() []events.CloseCode {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]events.CloseCode(nil), c.codes...)
}

func (c *pipeConn) SetDeadline(at time.Time) error {
	return errors.Join(c.SetReadDeadline(at), c.SetWriteDeadline(at))
}
func (c *pipeConn) SetReadDeadline(at time.Time) error  { return c.in.r.SetReadDeadline(at) }
func (c *pipeConn) SetWriteDeadline(at time.Time) error { return c.out.w.SetWriteDeadline(at) }
func (c *pipeConn) LocalAddr() net.Addr                 { return c.in.r.LocalAddr() }
func (c *pipeConn) RemoteAddr() net.Addr                { return c.in.r.RemoteAddr() }

// fakeListener yields connections and errors that a test pushes.
type fakeListener struct {
	addr   net.Addr
	next   chan func() (net.Conn, error)
	closed chan struct{}
	once   sync.Once
}

func newFakeListener(port int) *fakeListener {
	return &fakeListener{
		addr:   &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port},
		next:   make(chan func() (net.Conn, error)),
		closed: make(chan struct{}),
	}
}

func (l *fakeListener) Accept() (net.Conn, error) {
	select {
	case f := <-l.next:
		return f()
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *fakeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *fakeListener) Addr() net.Addr { return l.addr }

// fail makes the next Accept fail.
func (l *fakeListener) fail(err error) { l.next <- func() (net.Conn, error) { return nil, err } }

// connect makes the next Accept succeed and returns the client's end.
func (l *fakeListener) connect() *pipeConn {
	client, server := newPipe()
	l.next <- func() (net.Conn, error) { return server, nil }
	return client
}

// listenOn is the hook that gives out one listener.
func (l *fakeListener) listen(context.Context, string, string) (net.Listener, error) { return l, nil }

// pipeTunnel is a tunnel whose connections are in memory. The far ends come
// out of far.
type pipeTunnel struct {
	far chan *pipeConn
}

func newPipeTunnel() *pipeTunnel { return &pipeTunnel{far: make(chan *pipeConn, 1024)} }

func (p *pipeTunnel) DialContext(context.Context, string, string) (net.Conn, error) {
	near, far := newPipe()
	p.far <- far
	return near, nil
}

// problems collects what OnProblem is told.
type problems struct {
	mu  sync.Mutex
	all []Problem
}

func (p *problems) add(problem Problem) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, problem)
}

func (p *problems) sentences() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, problem := range p.all {
		all = append(all, problem.Sentence)
	}
	return all
}

// settled waits until every connection of an App has ended. It polls because
// the sockets between are the kernel's.
func settled(t testing.TB, a *App) Stats {
	t.Helper()
	require.Eventually(t, func() bool { return a.Stats().Active == 0 }, 10*time.Second, time.Millisecond)
	return a.Stats()
}
