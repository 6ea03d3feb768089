package forward

import (
	"fmt"
	"net/netip"
	"strings"
)

// field is one part of a port spec, between colons. Brackets are taken off.
type field struct {
	text      string
	bracketed bool
}

func (f field) empty() bool { return f.text == "" && !f.bracketed }

// isPorts reports whether the field can only have been meant as a port or a
// range: digits and hyphens, so that "70000" is a bad port and not a host.
func (f field) isPorts() bool {
	return f.text != "" && !f.bracketed && strings.Trim(f.text, "0123456789-") == ""
}

// String is the field as it was written, quoted where needed and shortened.
func (f field) String() string {
	text := f.text
	if f.bracketed {
		text = "[" + text + "]"
	}
	quoted := quote(text)
	if f.empty() || quoted != `"`+text+`"` {
		return quoted // it is not safe to print as it is
	}
	return text
}

// splitFields cuts a spec at the colons that are not inside brackets.
func splitFields(text string) ([]field, *SpecError) {
	if text == "" {
		return nil, &SpecError{Kind: ErrSyntax, Problem: "it is empty", Expected: "[bind:]local:[host:]remote or a port"}
	}
	if len(text) > MaxSpecLen {
		return nil, &SpecError{Kind: ErrSyntax, Problem: fmt.Sprintf("it is %d bytes long", len(text)),
			Expected: fmt.Sprintf("at most %d", MaxSpecLen)}
	}
	var fields []field
	for rest, more := text, true; more; {
		var f field
		if strings.HasPrefix(rest, "[") {
			end := strings.IndexByte(rest, ']')
			if end < 0 || end+1 < len(rest) && rest[end+1] != ':' {
				return nil, &SpecError{Kind: ErrSyntax, Problem: "a bracket is not closed before a colon",
					Expected: "an IPv6 address in brackets, as in [::1]:8080:80"}
			}
			f = field{text: rest[1:end], bracketed: true}
			_, rest, more = strings.Cut(rest[end+1:], ":")
		} else {
			f.text, rest, more = strings.Cut(rest, ":")
		}
		if fields = append(fields, f); len(fields) > 4 {
			return nil, &SpecError{Kind: ErrSyntax, Problem: "it has more than four parts",
				Expected: "[bind:]local:[host:]remote, with an IPv6 address in brackets"}
		}
		if len(fields) > 1 && f.empty() {
			return nil, &SpecError{Kind: ErrSyntax, Problem: "a part is empty",
				Expected: "[bind:]local:[host:]remote, with an IPv6 address in brackets"}
		}
	}
	return fields, nil
}

// parseBind reads an address to listen on. The name localhost becomes
// BindLoopback.
func parseBind(f field) (string, *SpecError) {
	switch {
	case f.bracketed:
		return parseHost(f)
	case f.text == BindAll:
		return BindAll, nil
	case isLoopbackName(f.text):
		return BindLoopback, nil
	default:
		return parseHost(f)
	}
}

// listensOnly reports whether in HOST:PORT the host can only be, or might as
// well be, the address to listen on.
func listensOnly(bind string) bool {
	if bind == BindLoopback || bind == BindAll {
		return true
	}
	addr, err := netip.ParseAddr(bind)
	return err == nil && (addr.IsLoopback() || addr.IsUnspecified())
}

// parseHost reads an IPv4 address, an IPv6 address in brackets or a host name
// (RFC 1123, section 2.1, plus the underscore that container names have), and
// returns an address in its canonical form.
func parseHost(f field) (string, *SpecError) {
	if f.bracketed {
		addr, err := netip.ParseAddr(f.text)
		if err != nil || !addr.Is6() || !isZone(addr.Zone()) {
			return "", &SpecError{Kind: ErrHost, Problem: fmt.Sprintf("%s is not an IPv6 address", f),
				Expected: "an address such as [::1], brackets are for IPv6 alone"}
		}
		return addr.Unmap().String(), nil
	}
	if addr, err := netip.ParseAddr(f.text); err == nil && addr.Is4() {
		return addr.String(), nil
	}
	if !isHostName(f.text) {
		return "", &SpecError{Kind: ErrHost, Problem: fmt.Sprintf("%s is not a host", f),
			Expected: "a host name, an IPv4 address or an IPv6 address in brackets"}
	}
	return f.text, nil
}

// isHostName reports whether name is a host name. A name whose last label is
// a number or a range is refused: it is a mistyped IPv4 address or port.
func isHostName(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if len(name) == 0 || len(name) > 253 {
		return false
	}
	label := ""
	for label = range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !isLabelByte(c) {
				return false
			}
		}
	}
	return strings.Trim(label, "0123456789-") != ""
}

// isZone reports whether zone is none or the name of a network interface.
func isZone(zone string) bool {
	for _, c := range []byte(zone) {
		if !isLabelByte(c) && c != '.' {
			return false
		}
	}
	return len(zone) <= 63
}

func isLabelByte(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}
