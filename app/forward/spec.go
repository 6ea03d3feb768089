package forward

import (
	"net"
	"strconv"
	"strings"
)

// Limits on what ParseSpec and ParseSpecs accept.
const (
	// MaxSpecLen is the longest port spec in bytes. The longest sensible one
	// names two hosts of 253 bytes.
	MaxSpecLen = 1024
	// MaxForwards is how many forwards one set of specs may ask for: every
	// port of two addresses. One range can be as long as 1-65535.
	MaxForwards = 2 * 65535
)

// Bind values that are not an address or a name of this host.
const (
	// BindLoopback listens on 127.0.0.1 and, where there is one, ::1.
	BindLoopback = ""
	// BindAll listens on every address of this host, IPv4 and IPv6.
	BindAll = "*"
)

// workspaceHost is what an empty RemoteHost is dialled as. It is a name and
// not 127.0.0.1 because many development servers listen on ::1 alone; the far
// side tries both.
const workspaceHost = "localhost"

// Spec is one forward: one local port to one port on the workspace's side.
// It is comparable. The zero value is not valid, it has no remote port.
type Spec struct {
	// Bind is where to listen: BindLoopback, BindAll, an address without
	// brackets ("0.0.0.0" is every IPv4 address, "::" every IPv6 address), or
	// a host name that this host resolves to an address of its own.
	Bind string
	// Local is the local port; 0 has one chosen when the forward starts.
	Local uint16
	// RemoteHost is resolved and dialled on the workspace's side, without
	// brackets. Empty is the workspace itself, by its loopback addresses.
	RemoteHost string
	// RemotePort is 1 to 65535.
	RemotePort uint16
}

// String returns the spec in the form that ParseSpec reads, with both ports
// written out: "3000:3000", "[::1]:8080:db.internal:5432". Parsing it gives
// back an equal Spec, save that Bind "localhost" comes back as BindLoopback,
// which means the same.
func (s Spec) String() string {
	var b strings.Builder
	if s.Bind != BindLoopback {
		b.WriteString(bracket(s.Bind))
		b.WriteByte(':')
	}
	b.WriteString(strconv.Itoa(int(s.Local)))
	b.WriteByte(':')
	if s.RemoteHost != "" {
		b.WriteString(bracket(s.RemoteHost))
		b.WriteByte(':')
	}
	b.WriteString(strconv.Itoa(int(s.RemotePort)))
	return b.String()
}

// Target is the address to dial on the workspace's side, in the form that
// net.Dial takes: "localhost:3000" when RemoteHost is empty.
func (s Spec) Target() string {
	host := s.RemoteHost
	if host == "" {
		host = workspaceHost
	}
	return net.JoinHostPort(host, strconv.Itoa(int(s.RemotePort)))
}

// validate holds a Spec made by hand to what the parser guarantees.
func (s Spec) validate() error {
	if s.RemotePort == 0 {
		return &SpecError{Spec: s.String(), Kind: ErrPort,
			Problem: "port 0 cannot be reached", Expected: "a remote port from 1 to 65535"}
	}
	if s.Bind != BindLoopback && s.Bind != BindAll {
		if _, err := parseHost(fieldOf(s.Bind)); err != nil {
			return err.in(s.String())
		}
	}
	if s.RemoteHost != "" {
		if _, err := parseHost(fieldOf(s.RemoteHost)); err != nil {
			return err.in(s.String())
		}
	}
	return nil
}

// isLoopbackName reports whether host is the name that stands for the loopback
// addresses (RFC 6761, section 6.3), which is never looked up.
func isLoopbackName(host string) bool {
	return strings.EqualFold(host, "localhost")
}

// bracket puts an IPv6 address in brackets and leaves anything else alone.
func bracket(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// fieldOf is the field that host would have been parsed from.
func fieldOf(host string) field {
	return field{text: host, bracketed: strings.Contains(host, ":")}
}
