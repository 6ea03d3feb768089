package template

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

var (
	nameRE   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	envKeyRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// A decoder reads values out of the YAML tree. Its first error sticks: after it, readers return zero values.
type decoder struct {
	file string
	err  error
}

// A field is one key of a mapping: read is called with its value and its full name for messages.
type field struct {
	key  string
	read func(value ast.Node, what string)
}

// mapping reads a mapping with a fixed set of keys, and returns the node of each key that is present.
func (d *decoder) mapping(n ast.Node, what string, fields ...field) map[string]ast.Node {
	present := make(map[string]ast.Node)
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.key
	}
	d.entries(n, what, func(key string, at ast.Node, value ast.Node) {
		i := slices.Index(known, key)
		if i < 0 {
			in := ""
			if what != "" {
				in = " in " + what
			}
			if near := nearest(key, known); near != "" {
				d.fail(at, "unknown key %s%s, did you mean %q", quote(key), in, near)
			} else {
				d.fail(at, "unknown key %s%s, expected one of %s", quote(key), in, strings.Join(known, ", "))
			}
			return
		}
		present[key] = at
		fields[i].read(value, join(what, key))
	})
	return present
}

// entries calls each for every key and value of a mapping, and sees to it that each key is there once.
func (d *decoder) entries(n ast.Node, what string, each func(key string, at, value ast.Node)) {
	mapping, ok := n.(*ast.MappingNode)
	if !ok {
		d.failType(n, what, "a mapping of key: value")
		return
	}
	if len(mapping.Values) > maxEntries {
		d.fail(n, "%s has %d entries, expected at most %d", subject(what), len(mapping.Values), maxEntries)
		return
	}
	lines := make(map[string]int)
	for _, entry := range mapping.Values {
		at := ast.Node(entry.Key)
		key := at.GetToken().Value
		if line, twice := lines[key]; twice {
			d.fail(at, "key %s is already in line %d, expected it once", quote(key), line)
			return
		}
		lines[key] = at.GetToken().Position.Line
		if each(key, at, entry.Value); d.err != nil {
			return
		}
	}
}

// list calls each for every item of a list.
func (d *decoder) list(n ast.Node, what, of string, each func(item ast.Node, what string)) {
	sequence, ok := n.(*ast.SequenceNode)
	if !ok {
		d.failType(n, what, "a list of "+of)
		return
	}
	if len(sequence.Values) > maxEntries {
		d.fail(n, "%s has %d items, expected at most %d", what, len(sequence.Values), maxEntries)
		return
	}
	for i, item := range sequence.Values {
		if each(item, fmt.Sprintf("%s[%d]", what, i)); d.err != nil {
			return
		}
	}
}

// text reads a string that is not empty.
func (d *decoder) text(n ast.Node, what, expected string) string {
	s, ok := stringValue(n)
	switch {
	case !ok:
		d.failType(n, what, expected)
	case strings.TrimSpace(s) == "":
		d.fail(n, "%s is empty, expected %s", what, expected)
	default:
		d.checkText(n, what, s)
	}
	return s
}

// line reads a string without line breaks, or an empty one.
func (d *decoder) line(n ast.Node, what string) string {
	s, ok := stringValue(n)
	if !ok || strings.ContainsAny(s, "\r\n") || len(s) > 200 {
		d.failType(n, what, "one line of at most 200 bytes")
	}
	d.checkText(n, what, s)
	return s
}

// name reads a name.
func (d *decoder) name(n ast.Node, what string) string {
	s, ok := stringValue(n)
	if !ok || !nameRE.MatchString(s) {
		d.failType(n, what, "a name of a-z, 0-9 and inner hyphens, at most 63 long")
	}
	return s
}

// envValue reads a variable's value: a string, or a number or truth value just as it is written.
func (d *decoder) envValue(n ast.Node, what string) string {
	switch n.(type) {
	case *ast.StringNode, *ast.LiteralNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode,
		*ast.InfinityNode, *ast.NanNode:
		s := scalar(n)
		d.checkText(n, what, s)
		return s
	default:
		d.failType(n, what, `a string ("" for an empty one)`)
		return ""
	}
}

func (d *decoder) env(n ast.Node, what string) map[string]string {
	env := make(map[string]string)
	d.entries(n, what, func(key string, at, value ast.Node) {
		switch {
		case !envKeyRE.MatchString(key):
			d.fail(at, "%s is not the name of a variable, expected A-Z, a-z, 0-9 and _", quote(key))
		case strings.HasPrefix(key, "TUNNEL_"), strings.HasPrefix(key, "TUNNELER_"):
			d.fail(at, "variable %s is reserved, expected a name that begins with neither TUNNEL_ nor TUNNELER_", key)
		}
		env[key] = d.envValue(value, join(what, key))
	})
	if len(env) == 0 {
		return nil
	}
	return env
}

func (d *decoder) bool(n ast.Node, what string) bool {
	b, ok := n.(*ast.BoolNode)
	if !ok {
		d.failType(n, what, "true or false")
		return false
	}
	return b.Value
}

func (d *decoder) port(n ast.Node, what string) int {
	const expected = "a port number from 1 to 65535"
	if _, ok := n.(*ast.IntegerNode); !ok {
		d.failType(n, what, expected)
		return 0
	}
	port, err := strconv.Atoi(scalar(n))
	if err != nil || port < 1 || port > 65535 || strings.HasPrefix(scalar(n), "0") {
		d.failType(n, what, expected)
	}
	return port
}

func (d *decoder) duration(n ast.Node, what string) Duration {
	v, err := time.ParseDuration(scalar(n))
	if err != nil || v < time.Millisecond || v > 24*time.Hour {
		d.failType(n, what, "a duration from 1ms to 24h such as 30s, 5m or 1h30m")
	}
	return Duration(v)
}

func (d *decoder) directory(n ast.Node, what string) string {
	const expected = "an absolute path, or a relative one that stays inside the workspace"
	s := d.text(n, what, expected)
	if d.err != nil {
		return ""
	}
	s = path.Clean(s)
	if !path.IsAbs(s) && (!filepath.IsLocal(s) || strings.HasPrefix(s, "~")) {
		d.failType(n, what, expected)
	}
	return s
}

// oneOf reads one of a few words.
func oneOf[T ~string](d *decoder, n ast.Node, what string, words ...T) T {
	s, _ := stringValue(n)
	if slices.Contains(words, T(s)) {
		return T(s)
	}
	names := make([]string, len(words))
	for i, w := range words {
		names[i] = string(w)
	}
	d.failType(n, what, "one of "+strings.Join(names, ", "))
	return ""
}

// checkText refuses what cannot be handed to a process.
func (d *decoder) checkText(n ast.Node, what, s string) {
	if strings.ContainsRune(s, 0) {
		d.fail(n, "%s holds a NUL character, expected text without one", what)
	}
	if len(s) > maxText {
		d.fail(n, "%s has %d bytes, expected at most %d (64 KiB)", what, len(s), maxText)
	}
}

// fail records an error at a node.
func (d *decoder) fail(n ast.Node, format string, args ...any) {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		n = m.Values[0].Key // the mapping's own token is its first colon
	}
	d.failToken(n.GetToken(), format, args...)
}

// failType records that a node is not what was expected there.
func (d *decoder) failType(n ast.Node, what, expected string) {
	d.fail(n, "%s is %s, expected %s", subject(what), show(n), expected)
}

// stringValue is the value of a string node.
func stringValue(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	default:
		return "", false
	}
}

// scalar is the text of a scalar node as it is written, without quotes.
func scalar(n ast.Node) string {
	if s, ok := stringValue(n); ok {
		return s
	}
	return n.GetToken().Value
}

// show names a value in a message.
func show(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.NullNode:
		return "empty"
	case *ast.StringNode, *ast.LiteralNode:
		return quote(scalar(n))
	default:
		return scalar(n)
	}
}

// quote quotes a value for a message and cuts it if it is long.
func quote(s string) string {
	const longest = 40
	if runes := []rune(s); len(runes) > longest {
		s = string(runes[:longest]) + "..."
	}
	return strconv.Quote(s)
}

// subject names a value by its path; the path of the template itself is empty.
func subject(what string) string {
	if what == "" {
		return "the template"
	}
	return what
}

func join(what, key string) string {
	if what == "" {
		return key
	}
	return what + "." + key
}
