package tailnet

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

// probeTimeout is how long a probe waits for a refusal; there is no other
// answer, so this is how long a probe of a living peer takes.
const probeTimeout = time.Second

// portUnreachable asks the peer's host whether anybody still listens on the
// peer's port, and reports whether it says no. It sends one byte from a
// connected socket: on such a socket, and not on the one that QUIC uses, the
// kernel reports an ICMP port-unreachable (RFC 792, RFC 4443) as a refused
// connection. The byte is none that begins a QUIC packet (RFC 9443), so a peer
// that is there drops it.
func portUnreachable(ctx context.Context, peer string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", peer)
	if err != nil {
		return false
	}
	defer conn.Close()
	// The deadline ends the read, or the end of the connection does.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write([]byte{0}); err != nil {
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	_, err = conn.Read(make([]byte, 1))
	return errors.Is(err, syscall.ECONNREFUSED)
}
