package forward

import (
	"fmt"
	"strconv"
	"strings"
)

// maxQuoted is how much of a spec, in bytes, an error message repeats.
const maxQuoted = 80

// ParseSpecs parses several port specs and refuses a set in which two want the
// same local port of the same address, be it inside a range or because one
// listens on all addresses. Port 0 never clashes. The forwards come in the
// order of texts. Errors are *SpecError.
func ParseSpecs(texts []string) ([]Spec, error) {
	var all []Spec
	var from []string // from[i] is the text that all[i] was parsed from
	for _, text := range texts {
		specs, err := ParseSpec(text)
		if err != nil {
			return nil, err
		}
		if len(all)+len(specs) > MaxForwards {
			return nil, &SpecError{Spec: text, Kind: ErrTooMany,
				Problem:  "too many ports together with the forwards before it",
				Expected: fmt.Sprintf("at most %d in all", MaxForwards)}
		}
		for range specs {
			from = append(from, text)
		}
		all = append(all, specs...)
	}
	if err := checkOverlap(all, func(i int) string { return from[i] }); err != nil {
		return nil, err
	}
	return all, nil
}

// ParseSpec parses one port spec into its forwards, one for each port of a
// range. Errors are *SpecError.
//
//	3000                          local port 3000 to port 3000 of the workspace
//	8080:80                       local port 8080 to port 80 of the workspace
//	0:80  :80                     a free local port, chosen when the forward starts
//	8000-8005                     six ports, each to the same port
//	8000-8005:9000-9005           six ports to six others
//	8080:db.internal:5432         to a host that the workspace can reach
//	127.0.0.1:8080:80             listen on one address ([::1]:8080:80 for IPv6)
//	*:8080:80                     listen on every address (0.0.0.0 every IPv4, [::] every IPv6)
//	[::1]:8080:[fd00::1]:80       both
//
// A host and one port, "HOST:3000", reads two ways: listen on HOST, or reach
// HOST. Where both come to the same (localhost, a loopback address) or only
// the first makes sense (*, 0.0.0.0, [::]) it is taken as HOST:3000:3000;
// otherwise it is refused with both ways to write it out. An empty bind
// address, ":8080:80", which for ssh -L means every address, is refused:
// exposing a port should take a visible character.
func ParseSpec(text string) ([]Spec, error) {
	specs, err := parseSpec(text)
	if err != nil {
		return nil, err.in(text)
	}
	return specs, nil
}

func parseSpec(text string) ([]Spec, *SpecError) {
	fields, err := splitFields(text)
	if err != nil {
		return nil, err
	}
	switch len(fields) {
	case 1:
		ports, err := parsePorts(fields[0])
		if err != nil {
			return nil, err
		}
		return expand("", ports, "", ports)
	case 2:
		return parseTwo(fields[0], fields[1])
	case 3:
		if fields[1].isPorts() {
			return parseBound(fields[0], fields[1], field{}, fields[2])
		}
		return parseRemote("", fields[0], fields[1], fields[2])
	default:
		return parseBound(fields[0], fields[1], fields[2], fields[3])
	}
}

// parseTwo reads LOCAL:REMOTE, :REMOTE (as kubectl does) and the cases of
// HOST:PORT that are not ambiguous.
func parseTwo(first, second field) ([]Spec, *SpecError) {
	if first.empty() {
		remote, err := parsePorts(second)
		if err != nil {
			return nil, err
		}
		return expand("", portRange{}, "", remote)
	}
	if first.isPorts() {
		return parseRemote("", first, field{}, second)
	}
	bind, err := parseBind(first)
	if err != nil {
		return nil, err
	}
	ports, err := parsePorts(second)
	if err != nil {
		return nil, err
	}
	if !listensOnly(bind) {
		return nil, &SpecError{Kind: ErrSyntax,
			Problem: fmt.Sprintf("%s could be a host to reach or an address to listen on", first),
			Expected: fmt.Sprintf("%s:%s:%s to reach it from the workspace or %s:%s:%s to listen on it",
				second, first, second, first, second, second)}
	}
	return expand(bind, ports, "", ports)
}

// parseBound reads BIND:LOCAL:[HOST:]REMOTE.
func parseBound(bindField, local, host, remote field) ([]Spec, *SpecError) {
	if bindField.isPorts() {
		return nil, &SpecError{Kind: ErrHost,
			Problem:  fmt.Sprintf("%s stands where the address to listen on belongs", bindField),
			Expected: "[bind:]local:[host:]remote"}
	}
	if bindField.empty() {
		return nil, &SpecError{Kind: ErrHost, Problem: "the address to listen on is empty",
			Expected: "* for every address, or no colon before the local port for loopback alone"}
	}
	bind, err := parseBind(bindField)
	if err != nil {
		return nil, err
	}
	return parseRemote(bind, local, host, remote)
}

// parseRemote reads LOCAL:[HOST:]REMOTE; the zero host field stands for none.
func parseRemote(bind string, local, hostField, remote field) ([]Spec, *SpecError) {
	localPorts, err := parsePorts(local)
	if err != nil {
		return nil, err
	}
	host := ""
	if hostField != (field{}) {
		if host, err = parseHost(hostField); err != nil {
			return nil, err
		}
	}
	remotePorts, err := parsePorts(remote)
	if err != nil {
		return nil, err
	}
	return expand(bind, localPorts, host, remotePorts)
}

// expand pairs the ports of two ranges.
func expand(bind string, local portRange, host string, remote portRange) ([]Spec, *SpecError) {
	if remote.first == 0 {
		return nil, &SpecError{Kind: ErrPort, Problem: "port 0 cannot be reached",
			Expected: "a remote port from 1 to 65535, as in 0:3000"}
	}
	if local.len() != remote.len() {
		return nil, &SpecError{Kind: ErrRange,
			Problem:  fmt.Sprintf("%s on this side and %s on the other", local.count(), remote.count()),
			Expected: "as many on both"}
	}
	specs := make([]Spec, local.len())
	for i := range specs {
		// Counting an int and adding keeps a range that ends at 65535 from wrapping.
		specs[i] = Spec{Bind: bind, Local: local.first + uint16(i), RemoteHost: host, RemotePort: remote.first + uint16(i)}
	}
	return specs, nil
}

// portRange is an inclusive range; the zero value is port 0, one port.
type portRange struct{ first, last uint16 }

func (r portRange) len() int { return int(r.last) - int(r.first) + 1 }

func (r portRange) count() string {
	if r.len() == 1 {
		return "1 port"
	}
	return strconv.Itoa(r.len()) + " ports"
}

// parsePorts reads "3000" or "8000-8005". A lone 0 is allowed here: whether it
// makes sense depends on the side.
func parsePorts(f field) (portRange, *SpecError) {
	from, to, isRange := strings.Cut(f.text, "-")
	first, ok := parsePort(from)
	if !ok || f.bracketed {
		return portRange{}, badPort(f)
	}
	if !isRange {
		return portRange{first, first}, nil
	}
	last, ok := parsePort(to)
	if !ok {
		return portRange{}, badPort(f)
	}
	switch {
	case first == 0:
		return portRange{}, &SpecError{Kind: ErrRange, Problem: "a range cannot begin with port 0",
			Expected: "a first port from 1 to 65535"}
	case last < first:
		return portRange{}, &SpecError{Kind: ErrRange, Problem: fmt.Sprintf("the range %s runs backwards", f),
			Expected: fmt.Sprintf("%d-%d", last, first)}
	}
	return portRange{first, last}, nil
}

func badPort(f field) *SpecError {
	problem := fmt.Sprintf("%s is not a port", f)
	if f.empty() {
		problem = "a port is missing"
	}
	return &SpecError{Kind: ErrPort, Problem: problem,
		Expected: "a number from 1 to 65535 or a range such as 8000-8005"}
}

// parsePort accepts digits alone: no sign, space or underscore.
func parsePort(s string) (uint16, bool) {
	port, err := strconv.ParseUint(s, 10, 16)
	return uint16(port), err == nil && len(s) <= len("65535")
}
