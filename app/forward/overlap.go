package forward

import (
	"fmt"
	"net/netip"
	"strings"
)

// family tells the two address families apart, which share no ports.
type family uint8

const (
	ipv4 family = 4
	ipv6 family = 6
)

// claim is one address of one family that a forward wants to listen on.
type claim struct {
	family family
	addr   string // "" is every address of the family
}

// claims lists what bind amounts to. A host name is counted as an address of
// both families that equals no other.
func claims(bind string) []claim {
	switch {
	case bind == BindLoopback, isLoopbackName(bind):
		return []claim{{ipv4, "127.0.0.1"}, {ipv6, "::1"}}
	case bind == BindAll:
		return []claim{{ipv4, ""}, {ipv6, ""}}
	}
	addr, err := netip.ParseAddr(bind)
	if err != nil {
		name := strings.ToLower(bind)
		return []claim{{ipv4, name}, {ipv6, name}}
	}
	addr = addr.Unmap()
	c := claim{family: ipv6, addr: addr.String()}
	if addr.Is4() {
		c.family = ipv4
	}
	if addr.IsUnspecified() {
		c.addr = ""
	}
	return []claim{c}
}

// checkOverlap finds two forwards that want the same local port of the same
// address, in time linear in their number; name gives the text of the i-th.
// Listening on all addresses overlaps with listening on any one: some systems
// would allow it, and who gets a connection would then depend on the system.
func checkOverlap(specs []Spec, name func(i int) string) error {
	type portClaim struct {
		port uint16
		claim
	}
	type portFamily struct {
		port   uint16
		family family
	}
	owner := make(map[portClaim]int, len(specs))
	first := make(map[portFamily]int, len(specs))
	for i, s := range specs {
		if s.Local == 0 {
			continue
		}
		for _, c := range claims(s.Bind) {
			exact, all := portClaim{s.Local, c}, portClaim{s.Local, claim{family: c.family}}
			other, taken := owner[exact]
			if !taken {
				other, taken = owner[all]
			}
			inFamily := portFamily{s.Local, c.family}
			if !taken && c.addr == "" {
				other, taken = first[inFamily]
			}
			if taken {
				return overlapError(s.Local, name(i), name(other))
			}
			owner[exact] = i
			if _, known := first[inFamily]; !known {
				first[inFamily] = i
			}
		}
	}
	return nil
}

func overlapError(port uint16, spec, other string) *SpecError {
	return &SpecError{Spec: spec, Kind: ErrDuplicate,
		Problem:  fmt.Sprintf("local port %d is asked for by %s already", port, quote(other)),
		Expected: "each local port once on an address"}
}
