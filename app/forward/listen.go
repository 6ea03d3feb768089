package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
)

// freePortTries is how often a port that is free on both loopback addresses is
// looked for. One try fails only if the port that is free on the first is
// taken on the second.
const freePortTries = 16

// Bound is a forward that is listened on.
type Bound struct {
	Spec Spec
	// Addrs are the addresses that it listens on, one or two.
	Addrs []net.Addr
	// LocalURLHost is the host and port that a client on this host uses, as a
	// URL has it: "127.0.0.1:8080", "[::1]:8080".
	LocalURLHost string
}

// endpoint is one address to listen on.
type endpoint struct {
	network, host string
}

// endpoints lists where a Bind listens. The networks name the family because
// Go listens on both for "tcp" and any unspecified address.
func endpoints(bind string) []endpoint {
	switch {
	case bind == BindLoopback, isLoopbackName(bind):
		return []endpoint{{"tcp4", "127.0.0.1"}, {"tcp6", "::1"}}
	case bind == BindAll:
		return []endpoint{{"tcp", ""}}
	}
	addr, err := netip.ParseAddr(bind)
	addr = addr.Unmap()
	switch {
	case err != nil:
		return []endpoint{{"tcp", bind}}
	case addr.Is4():
		return []endpoint{{"tcp4", addr.String()}}
	default:
		return []endpoint{{"tcp6", addr.String()}}
	}
}

// binder opens the listeners of a set of forwards: all or none.
type binder struct {
	listen listenFunc
	opened []net.Listener
}

// bind listens for every spec and returns the listeners of each.
func (b *binder) bind(ctx context.Context, specs []Spec) (_ [][]net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range b.opened {
				_ = l.Close()
			}
		}
	}()
	all := make([][]net.Listener, len(specs))
	// Ports that were asked for come first, lest a chosen one be among them.
	for _, chosen := range []bool{false, true} {
		for i, spec := range specs {
			if (spec.Local == 0) != chosen {
				continue
			}
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("cannot listen for forward %s: %w", spec, err)
			}
			if all[i], err = b.bindSpec(ctx, spec); err != nil {
				return nil, err
			}
			b.opened = append(b.opened, all[i]...)
		}
	}
	return all, nil
}

func (b *binder) bindSpec(ctx context.Context, spec Spec) ([]net.Listener, error) {
	for try := 1; ; try++ {
		listeners, err := b.bindOnce(ctx, spec)
		if err != nil && spec.Local == 0 && try < freePortTries && errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if taken, ok := errors.AsType[*PortTakenError](err); ok {
			taken.Holder = holderOf(ctx, taken.Address)
		}
		return listeners, err
	}
}

// bindOnce listens on the endpoints of one spec, on one port. A family that
// this host lacks is left out if the other is there.
func (b *binder) bindOnce(ctx context.Context, spec Spec) ([]net.Listener, error) {
	var listeners []net.Listener
	port := spec.Local
	places := endpoints(spec.Bind)
	var lacking error
	for _, place := range places {
		address := net.JoinHostPort(place.host, strconv.Itoa(int(port)))
		l, err := b.listen(ctx, place.network, address)
		if err != nil && len(places) > 1 && familyMissing(err) {
			lacking = &BindError{Spec: spec, Address: address, Err: err}
			continue
		}
		if err != nil {
			for _, l := range listeners {
				_ = l.Close()
			}
			if errors.Is(err, syscall.EADDRINUSE) {
				return nil, &PortTakenError{Spec: spec, Address: address, Err: err}
			}
			return nil, &BindError{Spec: spec, Address: address, Err: err}
		}
		listeners = append(listeners, l)
		if port == 0 {
			port = portOf(l.Addr())
		}
	}
	if len(listeners) == 0 {
		return nil, lacking
	}
	return listeners, nil
}

// familyMissing reports whether err says that this host has no such address
// family, or not its loopback address.
func familyMissing(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) ||
		errors.Is(err, syscall.EPROTONOSUPPORT)
}

// holderOf says who holds the port of an address to listen on. A name could be
// any address.
func holderOf(ctx context.Context, address string) *Holder {
	host, portText, _ := net.SplitHostPort(address)
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return nil
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		addr = netip.IPv6Unspecified()
	}
	return findHolder(ctx, netip.AddrPortFrom(addr, uint16(port)))
}

// newBound describes the listeners of one forward.
func newBound(spec Spec, listeners []net.Listener) Bound {
	b := Bound{Spec: spec}
	for _, l := range listeners {
		b.Addrs = append(b.Addrs, l.Addr())
	}
	host, port, err := net.SplitHostPort(b.Addrs[0].String())
	if err != nil {
		b.LocalURLHost = b.Addrs[0].String()
		return b
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.IsUnspecified() {
		// What listens everywhere is reached by loopback; both families if "*".
		host = "127.0.0.1"
		if spec.Bind == "::" {
			host = "::1"
		}
	}
	b.LocalURLHost = net.JoinHostPort(host, port)
	return b
}

func portOf(addr net.Addr) uint16 {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		return uint16(tcp.Port)
	}
	return 0
}
