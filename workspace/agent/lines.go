package agent

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// maxLine is the longest line of output in bytes; a longer one is cut into
// several.
const maxLine = 16 << 10

// lineSplitter turns a process's output into log lines.
type lineSplitter struct {
	emit func(string)
	rest []byte // the beginning of a line whose end has not come
}

// write takes the next piece of output.
func (l *lineSplitter) write(p []byte) {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			l.rest = append(l.rest, p...)
			p = nil
		} else {
			l.rest = append(l.rest, p[:end]...)
			p = p[end+1:]
		}
		for len(l.rest) > maxLine {
			n := cutBetweenRunes(l.rest, maxLine)
			l.say(l.rest[:n])
			l.rest = append(l.rest[:0], l.rest[n:]...)
		}
		if end >= 0 {
			l.say(bytes.TrimSuffix(l.rest, []byte("\r")))
			l.rest = l.rest[:0]
		}
	}
}

// flush ends a last line that has no line feed.
func (l *lineSplitter) flush() {
	if len(l.rest) > 0 {
		l.say(bytes.TrimSuffix(l.rest, []byte("\r")))
		l.rest = l.rest[:0]
	}
}

func (l *lineSplitter) say(line []byte) { l.emit(strings.ToValidUTF8(string(line), "\uFFFD")) }

// cutBetweenRunes is the last place up to n where a character of b begins.
func cutBetweenRunes(b []byte, n int) int {
	for i := n; i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			return i
		}
	}
	return n // no text
}
