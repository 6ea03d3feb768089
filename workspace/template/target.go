package template

import (
	"errors"
	"net"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// maxSocketPath is the longest unix socket path that every supported system takes: sun_path has 104 bytes on
// Darwin and 108 on Linux, one of them for the final NUL.
const maxSocketPath = 103

var errTarget = errors.New("expected unix:PATH inside the workspace, unix:/PATH or tcp:HOST:PORT")

// A Target is an address in the form that net.Dial takes.
type Target struct {
	// Network is "unix" or "tcp"; empty in the zero Target.
	Network string
	// Address is a socket path or a host and port. A relative path is relative to the workspace's own directory:
	// a process whose working directory that is dials it as it is, which also keeps it short enough for the kernel.
	Address string
}

// ParseTarget reads "unix:PATH" or "tcp:HOST:PORT".
func ParseTarget(s string) (Target, error) {
	network, address, found := strings.Cut(s, ":")
	if !found {
		return Target{}, errTarget
	}
	switch network {
	case "unix":
		if address == "" || strings.ContainsRune(address, 0) || len(address) > maxSocketPath {
			return Target{}, errTarget
		}
		address = path.Clean(address)
		if !path.IsAbs(address) && (!filepath.IsLocal(address) || address == ".") {
			return Target{}, errTarget
		}
	case "tcp":
		host, port, err := net.SplitHostPort(address)
		if err != nil || host == "" {
			return Target{}, errTarget
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return Target{}, errTarget
		}
	default:
		return Target{}, errTarget
	}
	return Target{Network: network, Address: address}, nil
}

// String is the form that ParseTarget reads; empty for the zero Target.
func (t Target) String() string {
	if t.Network == "" {
		return ""
	}
	return t.Network + ":" + t.Address
}

// MarshalText implements encoding.TextMarshaler.
func (t Target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Target) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*t = Target{}
		return nil
	}
	*t, err = ParseTarget(string(text))
	return err
}
