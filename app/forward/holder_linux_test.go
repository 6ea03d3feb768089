package forward

import (
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Lines as the kernel of a little-endian machine writes them; the tests run on
// such.
const procTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 27461 1 0000000000000000 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 18 1 0000000000000000 100 0 0 10 0
   2: 0100007F:C000 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 9 1 0000000000000000 20 4 30 10 -1
   0: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   501        0 77 1 0
   9: nonsense
`

func TestTheSocketTableIsRead(t *testing.T) {
	var got []socket
	for s := range sockets(strings.NewReader(procTable)) {
		got = append(got, s)
	}
	require.Equal(t, []socket{
		{netip.MustParseAddrPort("127.0.0.1:8080"), tcpListen, 1000, 27461},
		{netip.MustParseAddrPort("0.0.0.0:22"), tcpListen, 0, 18},
		{netip.MustParseAddrPort("127.0.0.1:49152"), 1, 1000, 9},
		{netip.MustParseAddrPort("[::1]:8081"), tcpListen, 501, 77},
	}, got)
}

func TestASocketIsInTheWayIfItHasThePortOnThatAddressOrOnAll(t *testing.T) {
	for _, test := range []struct {
		theirs, mine string
		want         bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true},
		{"127.0.0.1:80", "127.0.0.1:81", false},
		{"127.0.0.1:80", "127.0.0.2:80", false},
		{"0.0.0.0:80", "127.0.0.2:80", true},
		{"[::]:80", "127.0.0.2:80", true},
		{"127.0.0.1:80", "0.0.0.0:80", true},
		{"[::ffff:127.0.0.1]:80", "127.0.0.1:80", true},
		{"[fe80::1]:80", "[fe80::1%eth0]:80", true},
	} {
		s := socket{local: netip.MustParseAddrPort(test.theirs)}
		require.Equal(t, test.want, s.clashes(netip.MustParseAddrPort(test.mine)), "%s in the way of %s", test.theirs, test.mine)
	}
}

func TestTheHolderOfAPortIsFoundInAnotherProcess(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	file, err := l.(*net.TCPListener).File()
	require.NoError(t, err)
	sleeper := exec.Command("cat") // it waits for its input to end
	sleeper.ExtraFiles = append(sleeper.ExtraFiles, file)
	stdin, err := sleeper.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, sleeper.Start())
	t.Cleanup(func() {
		require.NoError(t, stdin.Close())
		require.NoError(t, sleeper.Wait())
	})
	addr := netip.MustParseAddrPort(l.Addr().String())
	require.NoError(t, file.Close())
	require.NoError(t, l.Close())

	holder := findHolder(t.Context(), addr)
	require.NotNil(t, holder)
	require.Equal(t, sleeper.Process.Pid, holder.PID)
	require.Equal(t, "cat", holder.Command)
	require.False(t, holder.Self)
}

func TestAFreePortHasNoHolder(t *testing.T) {
	l, err := net.Listen("tcp4", "127.79.0.1:0")
	require.NoError(t, err)
	addr := netip.MustParseAddrPort(l.Addr().String())
	require.NoError(t, l.Close())
	require.Nil(t, findHolder(t.Context(), addr))
}

func FuzzParseSocket(f *testing.F) {
	for line := range strings.Lines(procTable) {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		s, ok := parseSocket(line)
		require.Equal(t, ok, s.local.IsValid())
		if !ok {
			require.Equal(t, socket{}, s)
		}
	})
}
