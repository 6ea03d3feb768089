package main

import (
	"net"
	"net/netip"
	"strings"
)

// isLoopback reports whether a host, a name or an address, is this machine's
// own loopback. Of names only localhost is, whatever a resolver may say.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.Unmap().IsLoopback()
}

// checkListen refuses to serve without encryption beyond loopback.
func checkListen(listen string, encrypted bool) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return usagef("bad --listen %q: expected HOST:PORT", listen)
	}
	if !encrypted && !isLoopback(host) {
		return &failure{
			err: &net.AddrError{Err: "refusing to serve without TLS beyond loopback", Addr: listen}, code: exitUsage,
			hints: []string{"give --tls-cert and --tls-key, or listen on 127.0.0.1"},
		}
	}
	return nil
}
