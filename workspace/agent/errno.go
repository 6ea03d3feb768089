package agent

import (
	"errors"
	"syscall"
)

// isNotConnected: the target has closed its side altogether.
func isNotConnected(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.EPIPE)
}

// isTransient: a UDP socket reports what became of an earlier packet, or that
// this one is too large for its network.
func isTransient(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EMSGSIZE)
}
