package tailnet

import (
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"syscall"
)

// directSocket is the direct path's packet connection: a UDP socket that takes
// a packet which the network does not want right now as lost. To QUIC an error
// of a send is the end of the connection, but a laptop that changes networks
// has no route for some seconds, and the connection is to outlive that.
//
// It embeds the socket, so QUIC finds the means for segmentation offload,
// batched reads and congestion marks on it as on a bare [net.UDPConn].
type directSocket struct {
	*net.UDPConn
	metrics *Metrics
	// lenient is false while a tunneler dials: a candidate without a route
	// should fail at once then.
	lenient atomic.Bool
}

// WriteMsgUDP sends a packet.
func (s *directSocket) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = s.UDPConn.WriteMsgUDP(b, oob, addr)
	if err != nil && s.forgives(err) {
		return len(b), len(oob), nil
	}
	return n, oobn, err
}

// WriteTo sends a packet.
func (s *directSocket) WriteTo(b []byte, addr net.Addr) (int, error) {
	n, err := s.UDPConn.WriteTo(b, addr)
	if err != nil && s.forgives(err) {
		return len(b), nil
	}
	return n, err
}

// forgives reports whether a packet that was not sent is merely lost.
func (s *directSocket) forgives(err error) bool {
	var errno syscall.Errno
	if !s.lenient.Load() || !errors.As(err, &errno) || !slices.Contains(transientErrors, errno) {
		return false
	}
	s.metrics.add(SendErrors)
	return true
}

// transientErrors are what a send says when a route, an interface or an
// address has gone, a firewall objects, or a queue is full. Not among them:
// EMSGSIZE, from which QUIC learns the path's MTU, and EIO, from which it
// learns that an interface has no segmentation offload.
var transientErrors = []syscall.Errno{
	syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN,
	syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.EPERM, syscall.EACCES, syscall.ECONNREFUSED,
}

// listenUDP opens a UDP socket; for a wildcard address, one for both families.
func listenUDP(address string, metrics *Metrics) (*directSocket, error) {
	addr, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, err
	}
	return &directSocket{UDPConn: conn, metrics: metrics}, nil
}
