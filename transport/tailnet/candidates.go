package tailnet

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/tunneler/tunneler/events"
)

// parseCandidates reads the addresses where an agent says it may be reached,
// without repeats. What is no address that a packet can be sent to comes back
// as an error beside the good ones: one bad candidate must not spoil the rest.
func parseCandidates(candidates []string) (good []netip.AddrPort, bad []CandidateError) {
	for i, text := range candidates {
		if i == events.MaxCandidates {
			bad = append(bad, CandidateError{Addr: text, Err: fmt.Errorf("not tried: more than %d candidates", events.MaxCandidates)})
			break
		}
		addr, err := netip.ParseAddrPort(text)
		if err == nil && (addr.Port() == 0 || addr.Addr().IsUnspecified() || addr.Addr().IsMulticast()) {
			err = fmt.Errorf("no address to send to")
		}
		if err != nil {
			bad = append(bad, CandidateError{Addr: text, Err: fmt.Errorf("not an IP address and port: %w", err)})
			continue
		}
		addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
		if !slices.Contains(good, addr) {
			good = append(good, addr)
		}
	}
	return good, bad
}

// hostAddr is an address of this host and the interface that has it.
type hostAddr struct {
	iface string
	addr  netip.Addr
}

// hostAddrs lists the addresses of this host's interfaces that are up.
func hostAddrs() ([]hostAddr, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var all []hostAddr
	for _, iface := range ifaces {
		if iface.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := iface.Addrs()
		if err != nil {
			continue // it has gone meanwhile
		}
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				all = append(all, hostAddr{iface.Name, prefix.Addr().Unmap()})
			}
		}
	}
	return all, nil
}

// candidatesOf lists where a peer may reach the sockets bound to the given
// addresses, in their order, at most events.MaxCandidates. A socket bound to
// one address is reached there, loopback or not; one bound to all is reached at
// the host's addresses, except those that mean nothing elsewhere: loopback,
// link-local, and the bridges that container and virtual-machine hosts keep for
// themselves (docs/protocol.md, section 8).
func candidatesOf(bound []netip.AddrPort, host []hostAddr) []string {
	var list []string
	add := func(addr netip.Addr, port uint16) {
		text := netip.AddrPortFrom(addr, port).String()
		if len(list) < events.MaxCandidates && !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	for _, b := range bound {
		ip := b.Addr().Unmap()
		if !ip.IsUnspecified() {
			add(ip, b.Port())
			continue
		}
		for _, h := range host {
			if h.addr.IsGlobalUnicast() && !isHostBridge(h.iface) && (ip.Is6() || h.addr.Is4()) {
				add(h.addr, b.Port())
			}
		}
	}
	return list
}

// hostBridges begin the names of interfaces on which only guests of this very
// host can be reached.
var hostBridges = []string{"docker", "br-", "veth", "cni", "flannel", "cali", "virbr", "vmnet", "podman", "lxcbr", "lxdbr"}

func isHostBridge(iface string) bool {
	return slices.ContainsFunc(hostBridges, func(p string) bool { return strings.HasPrefix(iface, p) })
}
