package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// hasIPv6 says whether this host has an IPv6 loopback address.
func hasIPv6(t *testing.T) bool {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return false
	}
	require.NoError(t, l.Close())
	return true
}

// loopbacks are the addresses that a forward without a bind address listens on here.
func loopbacks(t *testing.T, port uint16) []string {
	t.Helper()
	all := []string{fmt.Sprintf("127.0.0.1:%d", port)}
	if hasIPv6(t) {
		all = append(all, fmt.Sprintf("[::1]:%d", port))
	}
	return all
}

func TestAChosenPortIsTheSameOnEveryLoopbackAddress(t *testing.T) {
	for _, bind := range []string{BindLoopback, "localhost"} {
		a := start(t, nil, Options{Forwards: []Spec{{Bind: bind, RemotePort: 3000}}})
		f := a.Forwards()[0]
		require.Equal(t, Spec{Bind: bind, RemotePort: 3000}, f.Spec)
		port := portOf(f.Addrs[0])
		require.NotZero(t, port)
		var got []string
		for _, addr := range f.Addrs {
			got = append(got, addr.String())
		}
		require.Equal(t, loopbacks(t, port), got)
		require.Equal(t, fmt.Sprintf("127.0.0.1:%d", port), f.LocalURLHost)
	}
}

func TestABindAddressIsListenedOnAlone(t *testing.T) {
	for _, test := range []struct {
		bind, addr, url string
		ipv6            bool
	}{
		{bind: "127.0.0.1", addr: "127.0.0.1", url: "127.0.0.1"},
		{bind: "::ffff:127.0.0.1", addr: "127.0.0.1", url: "127.0.0.1"},
		{bind: "0.0.0.0", addr: "0.0.0.0", url: "127.0.0.1"},
		{bind: "::1", addr: "[::1]", url: "[::1]", ipv6: true},
		{bind: "::", addr: "[::]", url: "[::1]", ipv6: true},
		{bind: "*", addr: "[::]", url: "127.0.0.1", ipv6: true},
	} {
		if test.ipv6 && !hasIPv6(t) {
			continue // nothing of it can be seen on this host
		}
		t.Run(test.bind, func(t *testing.T) {
			f := start(t, nil, Options{Forwards: []Spec{{Bind: test.bind, RemotePort: 80}}}).Forwards()[0]
			require.Len(t, f.Addrs, 1)
			port := strconv.Itoa(int(portOf(f.Addrs[0])))
			require.Equal(t, test.addr+":"+port, f.Addrs[0].String())
			require.Equal(t, test.url+":"+port, f.LocalURLHost)
			c, err := net.Dial("tcp", f.LocalURLHost)
			require.NoError(t, err)
			require.NoError(t, c.Close())
		})
	}
}

func TestEveryIPv4AddressIsNotEveryIPv6Address(t *testing.T) {
	a := start(t, nil, Options{Forwards: []Spec{{Bind: "0.0.0.0", RemotePort: 80}}})
	_, err := net.Dial("tcp6", fmt.Sprintf("[::1]:%d", portOf(a.Forwards()[0].Addrs[0])))
	require.Error(t, err)
}

func TestForwardsComeInTheOrderTheyWereAskedFor(t *testing.T) {
	specs := []Spec{{Bind: "127.0.0.1", RemotePort: 1}, {Bind: "127.76.0.1", Local: 65530, RemotePort: 2}, {Bind: "127.0.0.1", RemotePort: 3}}
	var got []Spec
	for _, f := range start(t, nil, Options{Forwards: specs}).Forwards() {
		got = append(got, f.Spec)
	}
	require.Equal(t, specs, got)
}

func TestARangeThatEndsAt65535IsListenedOn(t *testing.T) {
	specs, err := ParseSpec("127.77.0.1:65530-65535")
	require.NoError(t, err)
	far := newFarSide(t)
	a := start(t, far, Options{Forwards: specs})
	for i, f := range a.Forwards() {
		require.Equal(t, fmt.Sprintf("127.77.0.1:%d", 65530+i), f.LocalURLHost)
		c, err := net.Dial("tcp", f.LocalURLHost)
		require.NoError(t, err)
		_, err = c.Write([]byte("x"))
		require.NoError(t, err)
		_, err = far.accept(t).Read(make([]byte, 1))
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
}

func TestEveryPortThereIsCanBeForwardedAtOnce(t *testing.T) {
	specs, err := ParseSpec("127.0.0.1:1-65535")
	require.NoError(t, err)
	asked := make(map[string]bool)
	a := start(t, nil, Options{Forwards: specs, listen: func(_ context.Context, _, address string) (net.Listener, error) {
		asked[address] = true
		_, port, _ := net.SplitHostPort(address)
		number, _ := strconv.Atoi(port)
		return newFakeListener(number), nil
	}})
	require.Len(t, asked, 65535)
	require.True(t, asked["127.0.0.1:1"] && asked["127.0.0.1:65535"])
	require.Equal(t, "127.0.0.1:65535", a.Forwards()[65534].LocalURLHost)
	require.NoError(t, a.Close())
}

func TestATakenPortSaysWhoHasItAndOpensNothing(t *testing.T) {
	holder, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer holder.Close()
	taken := portOf(holder.Addr())

	var opened []net.Listener
	config := net.ListenConfig{}
	_, err = Start(t.Context(), Options{
		Forwards: []Spec{{Bind: "127.0.0.1", RemotePort: 80}, {Bind: "127.78.0.1", Local: 65530, RemotePort: 1}, {Local: taken, RemotePort: 3000}},
		listen: func(ctx context.Context, network, address string) (net.Listener, error) {
			l, err := config.Listen(ctx, network, address)
			if err == nil {
				opened = append(opened, l)
			}
			return l, err
		},
	})
	var portErr *PortTakenError
	require.ErrorAs(t, err, &portErr)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.Equal(t, fmt.Sprintf("127.0.0.1:%d", taken), portErr.Address)
	require.Equal(t, taken, portErr.Spec.Local)
	by := ""
	if portErr.Holder != nil { // on Linux
		require.Equal(t, os.Getpid(), portErr.Holder.PID)
		require.NotEmpty(t, portErr.Holder.Command)
		by = fmt.Sprintf(" by this process (pid %d)", os.Getpid())
	}
	require.EqualError(t, err, fmt.Sprintf("local port 127.0.0.1:%d is taken%s: stop what uses it, or forward another one (0:3000 picks one that is free)", taken, by))
	require.NotEmpty(t, opened)
	for _, l := range opened {
		_, err := l.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
	}
}

func TestTheHolderIsNamedAsFarAsItIsKnown(t *testing.T) {
	for want, h := range map[string]*Holder{
		"this process (pid 7)":              {PID: 7, Command: "x", UID: 1000, Self: true},
		"node (pid 7)":                      {PID: 7, Command: "node", UID: 1000},
		"process 7":                         {PID: 7, UID: 1000},
		"a process of the user with ID 0":   {},
		"a process of the user with ID 501": {UID: 501},
		"another process":                   {UID: -1},
	} {
		require.Equal(t, want, h.String())
	}
}

// failing is a hook that fails for the addresses it knows and otherwise listens
// on nothing; 0 becomes a port that counts up from 40001.
func failing(errs map[string]error) (listenFunc, *[]*fakeListener) {
	opened := &[]*fakeListener{}
	next := 40000
	return func(_ context.Context, network, address string) (net.Listener, error) {
		_, text, _ := net.SplitHostPort(address)
		port, _ := strconv.Atoi(text)
		if port == 0 {
			next++
			port = next
		}
		if err, ok := errs[network+" "+address]; ok {
			return nil, &net.OpError{Op: "listen", Net: network, Err: os.NewSyscallError("bind", err)}
		}
		l := newFakeListener(port)
		*opened = append(*opened, l)
		return l, nil
	}, opened
}

func TestAChosenPortThatIsTakenOnTheOtherFamilyIsChosenAgain(t *testing.T) {
	listen, opened := failing(map[string]error{"tcp6 [::1]:40001": syscall.EADDRINUSE, "tcp6 [::1]:40002": syscall.EADDRINUSE})
	a := start(t, nil, Options{Forwards: []Spec{{RemotePort: 80}}, listen: listen})
	require.Equal(t, "127.0.0.1:40003", a.Forwards()[0].LocalURLHost)
	require.Len(t, a.Forwards()[0].Addrs, 2)
	for _, l := range (*opened)[:2] {
		_, err := l.Accept()
		require.ErrorIs(t, err, net.ErrClosed, "a port that was not used is still open")
	}
}

func TestAFreePortIsNotLookedForForEver(t *testing.T) {
	tries := 0
	_, err := Start(t.Context(), Options{Forwards: []Spec{{RemotePort: 80}}, listen: func(_ context.Context, network, _ string) (net.Listener, error) {
		if network == "tcp6" {
			tries++
			return nil, syscall.EADDRINUSE
		}
		return newFakeListener(40001), nil
	}})
	var taken *PortTakenError
	require.ErrorAs(t, err, &taken)
	require.Equal(t, freePortTries, tries)
}

func TestPortsThatWereAskedForComeBeforeChosenOnes(t *testing.T) {
	var order []string
	start(t, nil, Options{
		Forwards: []Spec{{Bind: "127.0.0.1", RemotePort: 1}, {Bind: "127.0.0.1", Local: 40001, RemotePort: 2}},
		listen: func(_ context.Context, _, address string) (net.Listener, error) {
			order = append(order, address)
			return newFakeListener(len(order)), nil
		},
	})
	require.Equal(t, []string{"127.0.0.1:40001", "127.0.0.1:0"}, order)
}

func TestAHostWithOneAddressFamilyUsesThatOne(t *testing.T) {
	for _, missing := range []error{syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT} {
		listen, _ := failing(map[string]error{"tcp6 [::1]:3000": missing})
		a := start(t, nil, Options{Forwards: []Spec{{Local: 3000, RemotePort: 80}}, listen: listen})
		require.Len(t, a.Forwards()[0].Addrs, 1)

		listen, _ = failing(map[string]error{"tcp4 127.0.0.1:3000": missing})
		a = start(t, nil, Options{Forwards: []Spec{{Local: 3000, RemotePort: 80}}, listen: listen})
		require.Len(t, a.Forwards()[0].Addrs, 1)

		listen, _ = failing(map[string]error{"tcp4 127.0.0.1:3000": missing, "tcp6 [::1]:3000": missing})
		_, err := Start(t.Context(), Options{Forwards: []Spec{{Local: 3000, RemotePort: 80}}, listen: listen})
		require.ErrorIs(t, err, missing)
	}
}

func TestAnAddressThatCannotBeListenedOnSaysWhyAndWhatToDo(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{syscall.EACCES, "cannot listen on 10.0.0.1:80 for forward 10.0.0.1:80:8080: not permitted: choose a local port above 1023 or run with the privilege to use it"},
		{syscall.EADDRNOTAVAIL, "cannot listen on 10.0.0.1:80 for forward 10.0.0.1:80:8080: not an address of this host: listen on one that is, or on * for all of them"},
		{syscall.EMFILE, "cannot listen on 10.0.0.1:80 for forward 10.0.0.1:80:8080: too many open files: raise the limit (ulimit -n) or forward fewer ports"},
		{&net.DNSError{Err: "no such host"}, "cannot listen on 10.0.0.1:80 for forward 10.0.0.1:80:8080: the name cannot be resolved: listen on an address of this host"},
		{errors.New("boom"), "cannot listen on 10.0.0.1:80 for forward 10.0.0.1:80:8080: boom: choose another address or port"},
	} {
		_, err := Start(t.Context(), Options{
			Forwards: []Spec{{Bind: "10.0.0.1", Local: 80, RemotePort: 8080}},
			listen:   func(context.Context, string, string) (net.Listener, error) { return nil, test.err },
		})
		require.EqualError(t, err, test.want)
		require.ErrorIs(t, err, test.err)
		var bindErr *BindError
		require.ErrorAs(t, err, &bindErr)
	}
}

func TestSpecsMadeByHandAreChecked(t *testing.T) {
	for _, test := range []struct {
		specs []Spec
		kind  error
	}{
		{[]Spec{{Local: 3000}}, ErrPort},
		{[]Spec{{Bind: "a b", RemotePort: 1}}, ErrHost},
		{[]Spec{{Bind: "8000-8005", RemotePort: 1}}, ErrHost},
		{[]Spec{{RemoteHost: "*", RemotePort: 1}}, ErrHost},
		{[]Spec{{Local: 1, RemotePort: 1}, {Bind: "localhost", Local: 1, RemotePort: 2}}, ErrDuplicate},
		{[]Spec{{Bind: "127.0.0.1", Local: 1, RemotePort: 1}, {Bind: "::ffff:127.0.0.1", Local: 1, RemotePort: 2}}, ErrDuplicate},
		{make([]Spec, MaxForwards+1), ErrTooMany},
	} {
		_, err := Start(t.Context(), Options{Forwards: test.specs})
		require.ErrorIs(t, err, test.kind)
	}
}

func TestStartGivesUpWhenItsContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Start(ctx, Options{Forwards: []Spec{{RemotePort: 1}}})
	require.ErrorIs(t, err, context.Canceled)
}

func TestAnAppOutlivesTheContextItWasStartedWith(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	far := newFarSide(t)
	a, err := Start(ctx, Options{Forwards: []Spec{{Bind: "127.0.0.1", RemotePort: 1}}})
	require.NoError(t, err)
	defer a.Abort()
	cancel()
	a.Attach(far)
	connect(t, a)
	far.accept(t)
}

func TestAnAppWithoutForwardsLivesUntilItIsClosed(t *testing.T) {
	a := start(t, newFarSide(t), Options{Forwards: []Spec{}})
	require.Empty(t, a.Forwards())
	select {
	case <-a.Done():
		require.Fail(t, "it has ended")
	default:
	}
	require.NoError(t, a.Close())
	require.NoError(t, a.Wait())
}
