package agent

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/channel"
	"github.com/tunneler/tunneler/transport/tailnet"
)

// tunnel asks the agent for a session, as a coordinator does, and dials it, as
// a tunneler does.
func (co *coordinator) tunnel(ctx context.Context) *tailnet.Conn {
	co.t.Helper()
	ours, err := tailnet.NewIdentity()
	require.NoError(co.t, err)
	result, err := co.connection().Request(ctx, &events.ConnectionRequest{
		Kind: events.ConnectionTunnel, SessionID: "session", PeerKeyHash: ours.KeyHash().String(), Expires: time.Now().Add(time.Minute),
	})
	require.NoError(co.t, err)
	theirs, err := tailnet.ParseKeyHash(result.KeyHash)
	require.NoError(co.t, err)
	conn, err := tailnet.Dial(ctx, tailnet.DialConfig{
		SessionID: "session", Identity: ours, PeerKeyHash: theirs, Candidates: result.Candidates,
	})
	require.NoError(co.t, err)
	co.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// target is a listener of the test, which serves each connection with serve,
// and the port that it listens at.
func target(t *testing.T, serve func(conn *net.TCPConn)) string {
	t.Helper()
	l := listenAt(t, "tcp", "127.0.0.1:0")
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer conn.Close()
				serve(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		served.Wait()
	})
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port
}

func open(t *testing.T, conn *tailnet.Conn, network events.Network, target string) *tailnet.Stream {
	t.Helper()
	s, err := conn.Open(t.Context(), events.OpenHeader{Network: network, Target: target})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestATunnelReachesWhatItAsksFor(t *testing.T) {
	co := newCoordinator(t, "ports: [{port: 3000, target: 'unix:run/web.sock'}]")
	a := co.start(nil)
	co.untilSaid("life ready")
	conn := co.tunnel(t.Context())

	echo := func(conn *net.TCPConn) {
		_, _ = io.Copy(conn, conn)
		_ = conn.CloseWrite()
	}
	port := target(t, echo)
	require.NoError(t, os.Mkdir(filepath.Join(a.cfg.Dir, "run"), 0o700))
	socket := listenAt(t, "unix", filepath.Join(a.cfg.Dir, "run", "web.sock"))
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(conn, conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { socket.Close(); <-served })

	for name, c := range map[string]struct {
		network events.Network
		target  string
	}{
		"a port of the workspace":    {events.NetworkTCP, "localhost:" + port},
		"a host and port":            {events.NetworkTCP, "127.0.0.1:" + port},
		"a port with another target": {events.NetworkTCP, "localhost:3000"},
		"a socket of the workspace":  {events.NetworkUnix, "run/web.sock"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, conn, c.network, c.target)
			sent := make([]byte, 3<<20)
			_, _ = rand.Read(sent)
			go func() {
				_, _ = s.Write(sent)
				_ = s.CloseWrite() // half-closed: the answer comes all the same
			}()
			got, err := io.ReadAll(s)
			require.NoError(t, err)
			require.True(t, bytes.Equal(sent, got))
		})
	}
	require.NoError(t, a.stop())
	require.Error(t, conn.Wait())
}

func TestARefusalSaysWhatIsNotThere(t *testing.T) {
	co := newCoordinator(t, "ports: [{port: 3000, target: 'unix:run/web.sock'}]")
	co.start(nil)
	conn := co.tunnel(t.Context())
	free := listenAt(t, "tcp", "127.0.0.1:0")
	_, dead, err := net.SplitHostPort(free.Addr().String())
	require.NoError(t, err)
	free.Close()
	for name, c := range map[string]struct {
		network events.Network
		target  string
		want    events.Reply
	}{
		"a port where nothing listens": {events.NetworkTCP, "localhost:" + dead, events.Reply{Code: events.ReplyRefused, Text: "nothing listens on port " + dead + " in workspace demo"}},
		"a port with another target":   {events.NetworkTCP, "localhost:3000", events.Reply{Code: events.ReplyRefused, Text: "nothing listens on port 3000 in workspace demo"}},
		"a socket outside":             {events.NetworkUnix, "/etc/passwd", events.Reply{Code: events.ReplyDenied, Text: "sockets outside the workspace's directory are not reachable"}},
		"no port":                      {events.NetworkTCP, "localhost", events.Reply{Code: events.ReplyBadRequest, Text: `bad target "localhost": expected host:port`}},
	} {
		t.Run(name, func(t *testing.T) {
			err := open(t, conn, c.network, c.target).WaitReply(t.Context())
			var reply *events.Reply
			require.ErrorAs(t, err, &reply)
			require.Equal(t, c.want, *reply)
		})
	}
}

func TestAResetIsCarriedAsAReset(t *testing.T) {
	co := newCoordinator(t, "")
	co.start(nil)
	conn := co.tunnel(t.Context())

	t.Run("from the target", func(t *testing.T) {
		port := target(t, func(conn *net.TCPConn) {
			_, _ = io.ReadFull(conn, make([]byte, 5))
			_ = conn.SetLinger(0)
		})
		s := open(t, conn, events.NetworkTCP, "localhost:"+port)
		_, err := s.Write([]byte("hello"))
		require.NoError(t, err)
		_, err = io.ReadAll(s)
		var reset *tailnet.ResetError
		require.ErrorAs(t, err, &reset)
	})
	t.Run("from the tunneler", func(t *testing.T) {
		got := make(chan error, 1)
		port := target(t, func(conn *net.TCPConn) {
			_, _ = conn.Write([]byte("hello"))
			_, err := io.Copy(io.Discard, conn)
			got <- err
		})
		s := open(t, conn, events.NetworkTCP, "localhost:"+port)
		_, err := io.ReadFull(s, make([]byte, 5))
		require.NoError(t, err)
		s.Reset(events.CloseNormal)
		require.ErrorIs(t, <-got, syscall.ECONNRESET)
	})
}

func TestWhatATargetSaysBeforeItTakesNoMoreArrives(t *testing.T) {
	// As an HTTP server that refuses a large upload before it has come: it
	// answers and closes, and the rest of the upload finds nobody.
	co := newCoordinator(t, "")
	co.start(nil)
	conn := co.tunnel(t.Context())
	port := target(t, func(conn *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			_, _ = conn.Write([]byte("HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large"))
		}
	})
	s := open(t, conn, events.NetworkTCP, "localhost:"+port)
	_, err := fmt.Fprintf(s, "PUT / HTTP/1.1\r\nHost: demo\r\nContent-Length: %d\r\n\r\n", 64<<20)
	require.NoError(t, err)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for chunk := make([]byte, 64<<10); ; {
			if _, err := s.Write(chunk); err != nil {
				return
			}
		}
	}()
	answer := bufio.NewReader(s)
	resp, err := http.ReadResponse(answer, nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "too large", string(body))
	// Whether the end that follows is an end or a reset is up to the kernel: it
	// tells the agent of the reset once, and perhaps in answer to a write.
	_, err = answer.ReadByte()
	require.Error(t, err)
	<-sent
}

// direct is a tunnel to the serving part alone, without a coordinator. stop
// closes it and waits for everything that belongs to it.
func direct(t *testing.T) (tunnels *tunnels, conn *tailnet.Conn, stop func()) {
	t.Helper()
	listener, err := tailnet.Listen(tailnet.ListenConfig{Addrs: []string{"127.0.0.1:0"}})
	require.NoError(t, err)
	tunnels = newTunnels(listener, new(targets), nil)
	served := make(chan struct{})
	go func() {
		defer close(served)
		tunnels.serve(context.Background())
	}()
	ours, err := tailnet.NewIdentity()
	require.NoError(t, err)
	result := tunnels.expect(&events.ConnectionRequest{Kind: events.ConnectionTunnel, SessionID: "s", PeerKeyHash: ours.KeyHash().String()}, 0)
	require.Empty(t, result.Error)
	theirs, err := tailnet.ParseKeyHash(result.KeyHash)
	require.NoError(t, err)
	conn, err = tailnet.Dial(t.Context(), tailnet.DialConfig{SessionID: "s", Identity: ours, PeerKeyHash: theirs, Candidates: result.Candidates})
	require.NoError(t, err)
	stop = sync.OnceFunc(func() {
		_ = conn.Close()
		_ = listener.Close(context.Background())
		select {
		case <-served:
		case <-time.After(patience):
			require.Fail(t, "the tunnel is over, and something of it is left")
		}
	})
	t.Cleanup(stop)
	return tunnels, conn, stop
}

func TestATunnelThatEndsLeavesNothingBehindAtATargetThatIsSilent(t *testing.T) {
	tunnels, conn, stop := direct(t)
	release := make(chan struct{})
	port := target(t, func(*net.TCPConn) { <-release }) // it neither takes nor sends anything
	s := open(t, conn, events.NetworkTCP, "localhost:"+port)
	require.NoError(t, s.WaitReply(t.Context()))
	require.NoError(t, s.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
	for chunk := make([]byte, 1<<20); ; {
		if _, err := s.Write(chunk); err != nil { // everything in between is full
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			break
		}
	}
	require.Equal(t, 1, tunnels.stats().Streams)
	require.NoError(t, conn.CloseWithReason(events.CloseNormal, "enough"))
	stop()
	require.Zero(t, tunnels.stats().Streams)
	close(release)
}

func TestPacketsAreCarried(t *testing.T) {
	co := newCoordinator(t, "")
	co.start(nil)
	conn := co.tunnel(t.Context())
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		buf := make([]byte, 2048)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(append([]byte("echo "), buf[:n]...), from)
		}
	}()
	defer func() { server.Close(); <-served }()

	flow, err := conn.OpenFlow(t.Context(), events.OpenHeader{Target: server.LocalAddr().String()})
	require.NoError(t, err)
	defer flow.Close()
	buf := make([]byte, 2048)
	for i := range 10 {
		_, err := fmt.Fprintf(flow, "packet %d", i)
		require.NoError(t, err)
		require.NoError(t, flow.SetReadDeadline(time.Now().Add(patience)))
		n, err := flow.Read(buf)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("echo packet %d", i), string(buf[:n]))
	}
}

func TestWhatTheAgentWillNotDoIsRefusedWithAReason(t *testing.T) {
	co := newCoordinator(t, "")
	a := co.start(nil)
	conn := co.connection()
	hash := strings.Repeat("0f", 32)
	for name, c := range map[string]struct {
		request events.ConnectionRequest
		reason  string
	}{
		"an uplink":        {events.ConnectionRequest{Kind: events.ConnectionUplink, SessionID: "s", PeerKeyHash: hash}, "no connections of kind uplink"},
		"no key hash":      {events.ConnectionRequest{Kind: events.ConnectionTunnel, SessionID: "s"}, "bad key hash"},
		"a bad session id": {events.ConnectionRequest{Kind: events.ConnectionTunnel, SessionID: "S!", PeerKeyHash: hash}, "bad session id"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := conn.Request(t.Context(), &c.request)
			var refused *channel.RefusedError
			require.ErrorAs(t, err, &refused)
			require.Contains(t, refused.Reason, c.reason)
		})
	}
	require.NoError(t, a.stop())
}

func TestASessionEndsByOurClockAndNotByTheCoordinators(t *testing.T) {
	near := func(want, got time.Time) { require.WithinDuration(t, want, got, time.Second) }
	now := time.Now()
	near(now.Add(time.Minute), expires(now.Add(time.Minute), 0))
	near(now.Add(time.Minute), expires(now.Add(time.Hour+time.Minute), time.Hour))
	near(now.Add(time.Minute), expires(now.Add(time.Minute-time.Hour), -time.Hour))
	near(now.Add(defaultSession), expires(time.Time{}, time.Hour))
	near(now.Add(maxSession), expires(now.Add(24*time.Hour), 0))
}

func TestGaugesTellWhatTunnelsCarryWhileTheyDo(t *testing.T) {
	tunnels, conn, stop := direct(t)
	port := target(t, func(conn *net.TCPConn) { _, _ = io.Copy(conn, conn) })
	s := open(t, conn, events.NetworkTCP, "localhost:"+port)
	for _, size := range []int{1000, 1} { // once the second piece is back, the first is counted
		_, err := s.Write(make([]byte, size))
		require.NoError(t, err)
		_, err = io.ReadFull(s, make([]byte, size))
		require.NoError(t, err)
	}
	got := tunnels.stats()
	require.Equal(t, 1, got.Tunnels)
	require.Equal(t, 1, got.Streams)
	require.GreaterOrEqual(t, got.BytesReceived, int64(1000))
	require.GreaterOrEqual(t, got.BytesSent, int64(1000))
	require.NoError(t, s.Close())
	stop()
	require.Equal(t, &events.AgentStats{BytesSent: 1001, BytesReceived: 1001}, tunnels.stats())
}
