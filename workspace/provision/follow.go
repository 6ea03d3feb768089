package provision

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/tunneler/tunneler/events"
)

const (
	// maxLine is where a line is cut, in bytes.
	maxLine = 64 << 10
	// maxLog is the size in bytes from which on the output file is emptied once all of it has been delivered.
	maxLog = 16 << 20
	// maxBacklog is how many bytes the processes may be ahead of delivery before output is dropped.
	maxBacklog = 64 << 20
)

// A follower reads the file that the processes of a workspace append their output to, and delivers it line by line.
//
// The file, and not a pipe, is what their output goes to, because a pipe would break with the server. The position up to
// which it has been delivered is kept in a file beside it, so that the next server goes on there; what was
// delivered just before a crash may be delivered again, and nothing is left out. Emptying a file while it is appended
// to can lose what is written in the very moment of it, some microseconds every 16 MiB.
type follower struct {
	file     *os.File
	position *os.File
	to       *sink

	// read is how far the file has been read, and saved is the position last kept. pending was read and is not
	// delivered.
	read, saved int64
	pending     []byte
	buf         []byte
}

// openFollower opens the output file of a workspace in dir. A fresh one is emptied, else reading goes on where it was.
func openFollower(dir string, fresh bool, to *sink) (*follower, error) {
	flags := os.O_RDWR | os.O_CREATE | syscall.O_NOFOLLOW
	if fresh {
		flags |= os.O_TRUNC
	}
	file, err := os.OpenFile(logPath(dir), flags, 0o600)
	if err != nil {
		return nil, err
	}
	position, err := os.OpenFile(filepath.Join(dir, privateDir, "output.position"), flags, 0o600)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	f := &follower{file: file, position: position, to: to, buf: make([]byte, maxLine)}
	f.read = f.load()
	f.saved = f.read
	return f, nil
}

// poll delivers the lines that have come, some at a time. more tells whether there may be others already.
func (f *follower) poll() (more bool, err error) {
	info, err := f.file.Stat()
	if err != nil {
		return false, err
	}
	size := info.Size()
	switch {
	case size < f.read: // someone else has emptied it
		f.flush()
		f.read = 0
	case size-f.read > maxBacklog:
		f.flush()
		f.to.say(events.LogWarn, "%d bytes of output were dropped: the workspace writes faster than its log is stored", size-f.read)
		if err := f.empty(); err != nil {
			return false, err
		}
	case size == f.read && f.read > maxLog:
		f.flush()
		if err := f.empty(); err != nil {
			return false, err
		}
	}
	n, err := f.file.ReadAt(f.buf, f.read)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	f.read += int64(n)
	f.pending = append(f.pending, f.buf[:n]...)
	f.deliver()
	return n > 0, f.save()
}

// deliver delivers the whole lines in pending, and parts of a line that is too long.
func (f *follower) deliver() {
	rest := f.pending
	for {
		end := bytes.IndexByte(rest, '\n')
		if end >= 0 && end <= maxLine {
			f.to.process(clean(rest[:end]), false)
			rest = rest[end+1:]
			continue
		}
		if len(rest) <= maxLine {
			f.pending = append(f.pending[:0], rest...)
			return
		}
		end = runeBoundary(rest, maxLine)
		f.to.process(clean(rest[:end]), true)
		rest = rest[end:]
	}
}

// flush delivers what is left of a line that has no end yet.
func (f *follower) flush() {
	if len(f.pending) > 0 {
		f.to.process(clean(f.pending), true)
		f.pending = f.pending[:0]
	}
}

// drain delivers all there is, whole or not. What is still being written meanwhile may be left.
func (f *follower) drain() error {
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	for size := info.Size(); ; {
		more, err := f.poll()
		if err != nil {
			return err
		}
		if !more || f.read >= size {
			f.flush()
			return f.save()
		}
	}
}

func (f *follower) close() error { return errors.Join(f.file.Close(), f.position.Close()) }

func (f *follower) empty() error {
	if err := f.file.Truncate(0); err != nil {
		return err
	}
	f.read = 0
	return f.save()
}

// save keeps the position of the first byte that is not delivered.
func (f *follower) save() error {
	delivered := f.read - int64(len(f.pending))
	if delivered == f.saved {
		return nil
	}
	// One write of always the same length replaces the old position whole.
	if _, err := f.position.WriteAt(fmt.Appendf(nil, "%020d\n", delivered), 0); err != nil {
		return err
	}
	f.saved = delivered
	return nil
}

// load returns the position that was kept, or 0: better twice than never.
func (f *follower) load() int64 {
	text := make([]byte, 32)
	n, _ := f.position.ReadAt(text, 0) // nothing was read, nothing was kept
	position, err := strconv.ParseInt(strings.TrimSpace(string(text[:n])), 10, 64)
	if err != nil || position < 0 {
		return 0
	}
	return position
}

// runeBoundary is the last boundary of a character in b that is not after n, or n if there is no text there.
func runeBoundary(b []byte, n int) int {
	for i := n; i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			return i
		}
	}
	return n
}

// clean makes a string of a line.
func clean(line []byte) string {
	return strings.ToValidUTF8(string(bytes.TrimSuffix(line, []byte("\r"))), "\ufffd")
}
