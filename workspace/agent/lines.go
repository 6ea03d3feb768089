package agent

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// maxLine is the longest line of output in bytes; a longer one is cut into
// several.
const maxLine = 16 << 10

// lineSplitter turns a process's output into log lines.
type lineSplitter struct{ emit func(string) }

// copy reads to the end. A last line without a line feed is a line, too.
func (l *lineSplitter) copy(r io.Reader) {
	br := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := br.ReadSlice('\n')
		if len(line) > 0 {
			l.emit(strings.ToValidUTF8(string(bytes.TrimRight(line, "\r\n")), "\uFFFD"))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}
