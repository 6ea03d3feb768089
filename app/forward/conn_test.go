package forward

import (
	"context"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
)

// bubble runs a test with fake time on one forward whose listener and tunnel
// are in memory.
func bubble(t *testing.T, opts Options, test func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l, tunnel := newFakeListener(8080), newPipeTunnel()
		opts.Forwards = []Spec{{Bind: "127.0.0.1", Local: 8080, RemotePort: 3000}}
		opts.listen = l.listen
		a, err := Start(t.Context(), opts)
		require.NoError(t, err)
		defer a.Abort() // before the bubble's goroutines are counted, even if the test fails
		test(t, a, l, tunnel)
		a.Abort()
		require.NoError(t, a.Wait())
		stats := a.Stats()
		require.Zero(t, stats.Active)
		requireBalance(t, stats)
	})
}

// requireBalance holds the counters to what Stats promises of them.
func requireBalance(t require.TestingT, s Stats) {
	failed := uint64(0)
	for _, n := range s.Failed {
		failed += n
	}
	require.Equal(t, s.Accepted, s.Active+s.Completed+s.Refused+failed, "%+v", s)
}

func write(t testing.TB, w io.Writer, text string) {
	t.Helper()
	_, err := io.WriteString(w, text)
	require.NoError(t, err)
}

func read(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	_, err := io.ReadFull(r, got)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

func readEnd(t testing.TB, r io.Reader) {
	t.Helper()
	n, err := r.Read(make([]byte, 1))
	require.Zero(t, n)
	require.Equal(t, io.EOF, err)
}

func TestBytesGoBothWaysAndAreCounted(t *testing.T) {
	far := newFarSide(t)
	a := start(t, far, Options{})
	client := connect(t, a)
	server := far.accept(t)
	write(t, client, "question")
	read(t, server, "question")
	write(t, server, "an answer")
	read(t, client, "an answer")
	require.NoError(t, client.Close())
	readEnd(t, server)
	require.NoError(t, server.Close())
	require.Equal(t, Stats{Accepted: 1, Completed: 1, Failed: map[Reason]uint64{}, Sent: 8, Received: 9}, settled(t, a))
}

func TestTheTargetOfTheForwardIsDialled(t *testing.T) {
	for want, spec := range map[string]Spec{
		"tcp localhost:3000":   {Bind: "127.0.0.1", RemotePort: 3000},
		"tcp db.internal:5432": {Bind: "127.0.0.1", RemoteHost: "db.internal", RemotePort: 5432},
		"tcp [fd00::1]:80":     {Bind: "127.0.0.1", RemoteHost: "fd00::1", RemotePort: 80},
	} {
		dialled := make(chan string, 1)
		a := start(t, dialFunc(func(_ context.Context, network, address string) (net.Conn, error) {
			dialled <- network + " " + address
			return nil, errRefused
		}), Options{Forwards: []Spec{spec}})
		connectRefused(t, a)
		require.Equal(t, want, <-dialled)
	}
}

func TestAClientMayEndItsSideAndStillReadTheAnswer(t *testing.T) {
	far := newFarSide(t)
	a := start(t, far, Options{})
	client := connect(t, a)
	server := far.accept(t)
	write(t, client, "question")
	require.NoError(t, client.CloseWrite())
	read(t, server, "question")
	readEnd(t, server)
	write(t, server, "answer")
	require.NoError(t, server.Close())
	read(t, client, "answer")
	readEnd(t, client)
	require.EqualValues(t, 1, settled(t, a).Completed)
}

func TestAServerMayEndItsSideAndStillReadTheQuestion(t *testing.T) {
	far := newFarSide(t)
	a := start(t, far, Options{})
	client := connect(t, a)
	server := far.accept(t)
	write(t, server, "greeting")
	require.NoError(t, server.CloseWrite())
	read(t, client, "greeting")
	readEnd(t, client)
	write(t, client, "last words")
	require.NoError(t, client.Close())
	read(t, server, "last words")
	readEnd(t, server)
	require.EqualValues(t, 1, settled(t, a).Completed)
}

func TestAResetOfTheFarSideResetsTheClient(t *testing.T) {
	far := newFarSide(t)
	a := start(t, far, Options{})
	client := connect(t, a)
	server := far.accept(t)
	write(t, server, "half an ans")
	read(t, client, "half an ans")
	reset(server)
	_, err := client.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.Equal(t, map[Reason]uint64{ReasonRemoteReset: 1}, settled(t, a).Failed)
}

func TestAResetOfTheClientResetsTheFarSide(t *testing.T) {
	far := newFarSide(t)
	a := start(t, far, Options{})
	client := connect(t, a)
	server := far.accept(t)
	write(t, client, "half a ques")
	read(t, server, "half a ques")
	reset(client)
	_, err := server.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.Equal(t, map[Reason]uint64{ReasonLocalReset: 1}, settled(t, a).Failed)
}

func TestTheFarSideIsToldWhyAConnectionIsReset(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(a *App, client, far *pipeConn)
		want events.CloseCode
	}{
		{"the client resets", func(_ *App, client, _ *pipeConn) { reset(client) }, events.CloseNormal},
		{"the far side resets", func(_ *App, _, far *pipeConn) { reset(far) }, events.CloseNormal},
		{"the tunnel is taken away", func(a *App, _, _ *pipeConn) { a.Detach() }, events.CloseGoingAway},
		{"the application is closed", func(a *App, _, _ *pipeConn) { a.Abort() }, events.CloseGoingAway},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, plain := range []bool{false, true} {
				bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
					near, far := newPipe()
					a.Attach(dialFunc(func(context.Context, string, string) (net.Conn, error) {
						if plain {
							return &uint64Conn{pipeConn: near}, nil
						}
						return near, nil
					}))
					client := l.connect()
					synctest.Wait()
					test.end(a, client, far)
					synctest.Wait()
					require.Equal(t, []events.CloseCode{test.want}, near.resetCodes())
				})
			}
		})
	}
}

// uint64Conn takes the code of a reset as a plain number.
type uint64Conn struct{ *pipeConn }

func (c *uint64Conn) Reset(code uint64) { c.pipeConn.Reset(events.CloseCode(code)) }

func TestAConnectionThatEndsWellIsNotReset(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
		near, far := newPipe()
		a.Attach(dialFunc(func(context.Context, string, string) (net.Conn, error) { return near, nil }))
		client := l.connect()
		_, _ = client.Close(), far.Close()
		synctest.Wait()
		require.EqualValues(t, 1, a.Stats().Completed)
		require.Empty(t, near.resetCodes())
	})
}

func TestTheDialsContextEndsWithTheConnectionAndNotBefore(t *testing.T) {
	bubble(t, Options{DialTimeout: time.Minute}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
		var dial context.Context
		near, far := newPipe()
		a.Attach(dialFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
			dial = ctx
			return near, nil
		}))
		client := l.connect()
		synctest.Wait()
		require.NoError(t, dial.Err(), "a dialer that has not had its answer needs it still")
		deadline, ok := dial.Deadline()
		require.True(t, ok)
		require.Equal(t, time.Minute, time.Until(deadline))
		_, _ = client.Close(), far.Close()
		synctest.Wait()
		require.ErrorIs(t, dial.Err(), context.Canceled)
	})
}

// An HTTP server may answer an upload that it does not want and stop reading.
func TestAnAnswerIsDeliveredThoughTheFarSideHasStoppedReading(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		a.Attach(tunnel)
		client := l.connect()
		far := <-tunnel.far
		far.stopReading() // STOP_SENDING, in QUIC's words
		write(t, client, "an upload")
		write(t, client, "that nobody wants")
		write(t, far, "no, thank you")
		require.NoError(t, far.CloseWrite())
		read(t, client, "no, thank you")
		readEnd(t, client)

		// The client does not notice and is given some time.
		begin := time.Now()
		synctest.Wait()
		require.EqualValues(t, 1, a.Stats().Active)
		time.Sleep(lingerTime + time.Second)
		synctest.Wait()
		require.Equal(t, map[Reason]uint64{ReasonRemoteReset: 1}, a.Stats().Failed)
		require.Less(t, time.Since(begin), lingerTime+2*time.Second)
		_, err := client.Write([]byte("x"))
		require.Equal(t, io.ErrClosedPipe, err, "a reset could take from the client what it has not read yet")
	})
}

func TestAClientThatWritesToAFarSideThatHasEndedIsClosed(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		a.Attach(tunnel)
		client := l.connect()
		far := <-tunnel.far
		require.NoError(t, far.CloseWrite())
		readEnd(t, client)
		far.stopReading()
		write(t, client, "is anybody there")
		synctest.Wait()
		require.Equal(t, map[Reason]uint64{ReasonRemoteReset: 1}, a.Stats().Failed)
		_, err := client.Write([]byte("x"))
		require.Error(t, err)
	})
}

func TestAClientThatLeavesWhileTheFarSideIsDeafIsNoticed(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		a.Attach(tunnel)
		client := l.connect()
		far := <-tunnel.far
		far.stopReading()
		write(t, client, "an upload")
		reset(client)
		synctest.Wait()
		require.Equal(t, map[Reason]uint64{ReasonLocalReset: 1}, a.Stats().Failed)
		_, err := far.Write([]byte("x"))
		require.Equal(t, errReset, err)
	})
}

// plain hides all that a connection offers beside net.Conn.
type plain struct{ net.Conn }

func TestWithoutHalfCloseTheEndOfTheClientsStreamEndsTheConnection(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		a.Attach(dialFunc(func(context.Context, string, string) (net.Conn, error) {
			near, far := newPipe()
			tunnel.far <- far
			return plain{near}, nil
		}))
		client := l.connect()
		far := <-tunnel.far
		require.NoError(t, client.CloseWrite())
		readEnd(t, far)
		_, err := client.Read(make([]byte, 1))
		require.Equal(t, errReset, err, "half an answer must not look like a whole one")
	})
}

func TestAWrappedEndOfTheFarSideIsNoOrderlyOne(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		a.Attach(tunnel)
		client := l.connect()
		far := <-tunnel.far
		far.failWrite(fmt.Errorf("connection lost: %w", io.EOF))
		_, err := client.Read(make([]byte, 1))
		require.Equal(t, errReset, err)
	})
}

// swift is a tunnel connection that copies by itself.
type swift struct {
	*pipeConn
	used chan string
}

func (c *swift) ReadFrom(r io.Reader) (int64, error) {
	c.used <- "ReadFrom"
	return io.Copy(plain{c.pipeConn}, struct{ io.Reader }{r})
}

func (c *swift) WriteTo(w io.Writer) (int64, error) {
	c.used <- "WriteTo"
	return io.Copy(struct{ io.Writer }{w}, plain{c.pipeConn})
}

func TestATunnelConnectionThatCopiesByItselfIsLeftToIt(t *testing.T) {
	for _, test := range []struct {
		name   string
		end    func(client, far *pipeConn)
		failed map[Reason]uint64
	}{
		{"to a good end", func(client, far *pipeConn) { _, _ = client.Close(), far.Close() }, map[Reason]uint64{}},
		{"until the client resets", func(client, _ *pipeConn) { reset(client) }, map[Reason]uint64{ReasonLocalReset: 1}},
		{"until the far side resets", func(_, far *pipeConn) { reset(far) }, map[Reason]uint64{ReasonRemoteReset: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
				used := make(chan string, 2)
				a.Attach(dialFunc(func(context.Context, string, string) (net.Conn, error) {
					near, far := newPipe()
					tunnel.far <- far
					return &swift{near, used}, nil
				}))
				client := l.connect()
				far := <-tunnel.far
				write(t, client, "question")
				read(t, far, "question")
				write(t, far, "an answer")
				read(t, client, "an answer")
				require.ElementsMatch(t, []string{"ReadFrom", "WriteTo"}, []string{<-used, <-used})
				synctest.Wait()
				stats := a.Stats()
				require.EqualValues(t, 8, stats.Sent, "counted as it goes")
				require.EqualValues(t, 9, stats.Received)
				test.end(client, far)
				synctest.Wait()
				require.Equal(t, test.failed, a.Stats().Failed)
				require.Zero(t, a.Stats().Active)
			})
		})
	}
}
