package tailnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
)

func TestCandidatesOfSockets(t *testing.T) {
	var many []hostAddr
	for i := range 2 * events.MaxCandidates {
		many = append(many, hostAddr{"eth0", netip.AddrFrom4([4]byte{10, 0, byte(i), 1})})
	}
	addr := netip.MustParseAddr
	host := []hostAddr{
		{"lo", addr("127.0.0.1")}, {"lo", addr("::1")},
		{"eth0", addr("192.168.1.7")}, {"eth0", addr("fe80::1")}, {"eth0", addr("2001:db8::7")},
		{"eth0", addr("169.254.3.4")},
		{"docker0", addr("172.17.0.1")}, {"br-12ab", addr("172.18.0.1")}, {"virbr0", addr("192.168.122.1")},
		{"wg0", addr("100.64.0.3")},
		{"eth1", addr("192.168.1.7")},
	}
	for _, test := range []struct {
		name  string
		bound []string
		host  []hostAddr
		want  []string
	}{
		{"a socket for all addresses of both families", []string{"[::]:4433"}, host, []string{"192.168.1.7:4433", "[2001:db8::7]:4433", "100.64.0.3:4433"}},
		{"a socket for all IPv4 addresses", []string{"0.0.0.0:4433"}, host, []string{"192.168.1.7:4433", "100.64.0.3:4433"}},
		{"loopback only if bound to it", []string{"127.0.0.1:1", "[::1]:2"}, host, []string{"127.0.0.1:1", "[::1]:2"}},
		{"one address of an IPv4 socket that says it in IPv6", []string{"[::ffff:10.0.0.1]:1"}, host, []string{"10.0.0.1:1"}},
		{"no address twice", []string{"192.168.1.7:1", "0.0.0.0:1"}, host, []string{"192.168.1.7:1", "100.64.0.3:1"}},
		{"a host without a network", []string{"[::]:1"}, host[:2], nil},
		{"no socket", nil, host, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var bound []netip.AddrPort
			for _, b := range test.bound {
				bound = append(bound, netip.MustParseAddrPort(b))
			}
			got := candidatesOf(bound, test.host)
			require.Equal(t, test.want, got)
			good, bad := parseCandidates(got)
			require.Len(t, good, len(got), "every one can be dialled")
			require.Empty(t, bad)
		})
	}
	require.Len(t, candidatesOf([]netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:1")}, many), events.MaxCandidates)
	_, err := hostAddrs()
	require.NoError(t, err)
}

func TestNoMoreCandidatesAreTriedThanAllowed(t *testing.T) {
	var list []string
	for i := range events.MaxCandidates + 10 {
		list = append(list, fmt.Sprintf("10.0.%d.1:1", i))
	}
	good, bad := parseCandidates(list)
	require.Len(t, good, events.MaxCandidates)
	require.Len(t, bad, 1)
	require.ErrorContains(t, bad[0].Err, "not tried: more than 64 candidates")
}

func FuzzParseCandidates(f *testing.F) {
	for _, seed := range []string{"10.0.0.1:1", "[::1]:65535", "[fe80::1%eth0]:1", "host:1", ":1", "1.2.3.4:99999", "[::ffff:1.2.3.4]:5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		good, bad := parseCandidates([]string{text, text})
		if len(bad) > 0 {
			require.Empty(t, good)
			return
		}
		require.Len(t, good, 1)
		require.NotZero(t, good[0].Port())
		require.False(t, good[0].Addr().Is4In6() || good[0].Addr().IsUnspecified() || good[0].Addr().IsMulticast())
	})
}

func TestASendThatTheNetworkRefusesIsALostPacketOnceAConnectionIsUp(t *testing.T) {
	metrics := &Metrics{}
	socket, err := listenUDP("127.0.0.1:0", metrics)
	require.NoError(t, err)
	defer socket.Close()
	for _, errno := range transientErrors {
		require.False(t, socket.forgives(&net.OpError{Err: os.NewSyscallError("sendmsg", errno)}), "a dial fails at once")
	}
	require.Zero(t, metrics.Get(SendErrors))
	socket.lenient.Store(true)
	for _, errno := range transientErrors {
		require.True(t, socket.forgives(&net.OpError{Err: os.NewSyscallError("sendmsg", errno)}), errno)
	}
	require.Equal(t, uint64(len(transientErrors)), metrics.Get(SendErrors))
	for _, err := range []error{
		net.ErrClosed, errors.New("else"),
		os.NewSyscallError("sendmsg", syscall.EMSGSIZE), // QUIC measures the path by it
		os.NewSyscallError("sendmsg", syscall.EIO),      // and finds missing offload by this
	} {
		require.False(t, socket.forgives(err), err)
	}
	_, err = socket.WriteTo(make([]byte, 1<<17), socket.LocalAddr())
	require.ErrorIs(t, err, syscall.EMSGSIZE)
	_, _, err = socket.WriteMsgUDP(make([]byte, 1<<17), nil, socket.LocalAddr().(*net.UDPAddr))
	require.ErrorIs(t, err, syscall.EMSGSIZE)
}

func TestAProbeTellsAClosedPortFromAnOpenOne(t *testing.T) {
	open, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer open.Close()
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())

	require.True(t, portUnreachable(context.Background(), closed.LocalAddr().String()))
	ctx, cancel := context.WithCancel(context.Background())
	answer := make(chan bool)
	go func() { answer <- portUnreachable(ctx, open.LocalAddr().String()) }()
	n, _, err := open.ReadFrom(make([]byte, 10))
	require.NoError(t, err)
	require.Equal(t, 1, n)
	cancel()
	require.False(t, <-answer)
	require.False(t, portUnreachable(ctx, closed.LocalAddr().String()), "its context is over")
	require.False(t, portUnreachable(context.Background(), "nonsense"))
}
