// Package tailnettest is the in-memory twin of package tailnet's sockets, for
// tests: real connections between a tunneler and an agent over a simulated
// network. It runs inside a testing/synctest bubble as well as outside. It must
// not know what a test does with a connection.
package tailnettest

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/transport/tailnet"
)

// Network carries packets between its sockets. It neither loses nor reorders
// any until it is told to.
type Network struct {
	router  simnet.PerfectRouter
	latency time.Duration
	drop    atomic.Pointer[func(from, to net.Addr, packet []byte) bool]
	hosts   atomic.Uint32
}

// NewNetwork makes a network on which a packet takes latency one way.
func NewNetwork(latency time.Duration) *Network { return &Network{latency: latency} }

// Socket opens a socket at a host of its own, which ends with the test.
func (n *Network) Socket(t testing.TB) net.PacketConn {
	t.Helper()
	return n.SocketAt(t, &net.UDPAddr{IP: net.IPv4(10, 0, 0, byte(n.hosts.Add(1))), Port: 4433})
}

// SocketAt opens a socket at the given address; a later one takes the place of
// an earlier one.
func (n *Network) SocketAt(t testing.TB, addr *net.UDPAddr) net.PacketConn {
	t.Helper()
	return n.SlowSocketAt(t, addr, n.latency)
}

// SlowSocketAt is SocketAt with a latency of its own for what comes in.
func (n *Network) SlowSocketAt(t testing.TB, addr *net.UDPAddr, latency time.Duration) net.PacketConn {
	t.Helper()
	addr = shortAddr(addr)
	r := &router{network: n}
	sim := &simnet.Simnet{Router: r}
	conn := sim.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Latency: latency})
	require.NoError(t, sim.Start())
	n.router.AddNode(addr, r.link)
	t.Cleanup(func() {
		_ = conn.Close()
		_ = sim.Close()
	})
	return conn
}

// Cut drops every packet from now on, or none.
func (n *Network) Cut(cut bool) {
	if cut {
		n.Drop(func(net.Addr, net.Addr, []byte) bool { return true })
	} else {
		n.Drop(nil)
	}
}

// Drop drops every packet from now on for which f returns true; nil drops none.
func (n *Network) Drop(f func(from, to net.Addr, packet []byte) bool) {
	if f == nil {
		n.drop.Store(nil)
		return
	}
	n.drop.Store(&f)
}

// router is the Network as simnet wants it for one socket. It keeps the socket
// for later: simnet announces it before it can take packets.
type router struct {
	network *Network
	link    simnet.PacketReceiver
}

func (r *router) AddNode(_ net.Addr, link simnet.PacketReceiver) { r.link = link }

func (r *router) SendPacket(p simnet.Packet) error {
	if drop := r.network.drop.Load(); drop != nil && (*drop)(p.From, p.To, p.Data) {
		return nil
	}
	if addr, ok := p.To.(*net.UDPAddr); ok {
		p.To = shortAddr(addr)
	}
	return r.network.router.SendPacket(p)
}

// shortAddr gives an IPv4 address its 4 bytes: simnet compares bytes.
func shortAddr(addr *net.UDPAddr) *net.UDPAddr {
	if v4 := addr.IP.To4(); v4 != nil {
		return &net.UDPAddr{IP: v4, Port: addr.Port}
	}
	return addr
}

// Setup is what a test may change about the connection that it gets.
type Setup struct {
	Dial   tailnet.DialConfig
	Listen tailnet.ListenConfig
}

// Connect makes a listener on the network and connects to it: the session, the
// keys, the candidates and the sockets are filled in, everything else is
// setup's. All of it is closed when the test ends.
func (n *Network) Connect(t testing.TB, setup Setup) (tunneler, agent *tailnet.Conn) {
	t.Helper()
	if len(setup.Listen.PacketConns) == 0 {
		setup.Listen.PacketConns = []net.PacketConn{n.Socket(t)}
	}
	listener, err := tailnet.Listen(setup.Listen)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = listener.Close(ctx)
	})
	return n.Join(t, listener, setup.Dial)
}

// Join connects to a listener on the network, as Connect does.
func (n *Network) Join(t testing.TB, listener *tailnet.Listener, dial tailnet.DialConfig) (tunneler, agent *tailnet.Conn) {
	t.Helper()
	ours, theirs := Identity(t), Identity(t)
	if dial.SessionID == "" {
		dial.SessionID = "session"
	}
	dial.Identity, dial.PeerKeyHash = ours, theirs.KeyHash()
	dial.Candidates = listener.Candidates()
	if dial.PacketConn == nil {
		dial.PacketConn = n.Socket(t)
	}
	require.NoError(t, listener.Expect(tailnet.Session{
		ID: dial.SessionID, Identity: theirs, PeerKeyHash: ours.KeyHash(), Expires: time.Now().Add(time.Minute),
	}))
	tunneler, err := tailnet.Dial(context.Background(), dial)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tunneler.Close() })
	agent, err = listener.Accept(context.Background())
	require.NoError(t, err)
	return tunneler, agent
}

// Identity makes a key.
func Identity(t testing.TB) *tailnet.Identity {
	t.Helper()
	id, err := tailnet.NewIdentity()
	require.NoError(t, err)
	return id
}

// Pair is a connected tunneler and agent on a network without latency.
func Pair(t testing.TB) (tunneler, agent *tailnet.Conn) {
	t.Helper()
	return NewNetwork(0).Connect(t, Setup{})
}
