package forward

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	// holderTimeout bounds the search: it only makes an error message better.
	holderTimeout = time.Second
	// tcpListen is the state of a listening socket (TCP_LISTEN in the kernel's
	// include/net/tcp_states.h).
	tcpListen = 0x0a
	// maxCommand is the longest command name that is shown, in bytes. The
	// kernel keeps 15.
	maxCommand = 64
)

// socket is one line of /proc/net/tcp (proc(5)).
type socket struct {
	local netip.AddrPort
	state uint8
	uid   int
	inode uint64
}

// findHolder says who holds addr, as far as this user may know: the process,
// else the user that it belongs to, else nil.
func findHolder(ctx context.Context, addr netip.AddrPort) *Holder {
	ctx, cancel := context.WithTimeout(ctx, holderTimeout)
	defer cancel()
	held, ok := socketOn(addr)
	if !ok {
		return nil
	}
	holder := &Holder{UID: held.uid}
	if held.inode == 0 {
		return holder
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return holder
	}
	link := "socket:[" + strconv.FormatUint(held.inode, 10) + "]"
	for _, dir := range dirs {
		if ctx.Err() != nil {
			break
		}
		if !holds(dir, link) {
			continue
		}
		holder.PID, _ = strconv.Atoi(filepath.Base(dir))
		holder.Self = holder.PID == os.Getpid()
		holder.Command = commandName(dir)
		break
	}
	return holder
}

// socketOn finds the socket that keeps addr from being listened on.
func socketOn(addr netip.AddrPort) (found socket, ok bool) {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		file, err := os.Open(table)
		if err != nil {
			continue
		}
		for s := range sockets(file) {
			// One that is not listening can be in the way too, but is second choice.
			if s.clashes(addr) && (!ok || found.state != tcpListen && s.state == tcpListen) {
				found, ok = s, true
			}
		}
		_ = file.Close()
	}
	return found, ok
}

func (s socket) clashes(addr netip.AddrPort) bool {
	if s.local.Port() != addr.Port() {
		return false
	}
	mine, theirs := addr.Addr().Unmap().WithZone(""), s.local.Addr().Unmap()
	return mine == theirs || mine.IsUnspecified() || theirs.IsUnspecified()
}

// sockets yields the sockets of a table, leaving out lines that it cannot read.
func sockets(table io.Reader) func(yield func(socket) bool) {
	return func(yield func(socket) bool) {
		lines := bufio.NewScanner(table)
		for lines.Scan() {
			if s, ok := parseSocket(lines.Bytes()); ok && !yield(s) {
				return
			}
		}
	}
}

// parseSocket reads one line: number, local address, remote address, state,
// queues, timers, retransmits, user ID, time-out, inode and more.
func parseSocket(line []byte) (socket, bool) {
	fields := bytes.Fields(line)
	if len(fields) < 10 {
		return socket{}, false
	}
	local, ok := parseProcAddr(string(fields[1]))
	if !ok {
		return socket{}, false
	}
	state, err := strconv.ParseUint(string(fields[3]), 16, 8)
	if err != nil {
		return socket{}, false
	}
	uid, err := strconv.ParseUint(string(fields[7]), 10, 32)
	if err != nil {
		return socket{}, false
	}
	inode, err := strconv.ParseUint(string(fields[9]), 10, 64)
	if err != nil {
		return socket{}, false
	}
	return socket{local: local, state: uint8(state), uid: int(uid), inode: inode}, true
}

// parseProcAddr reads "0100007F:1F90": 32-bit words in the host's byte order,
// one or four, and a port.
func parseProcAddr(text string) (netip.AddrPort, bool) {
	host, portText, ok := strings.Cut(text, ":")
	if !ok {
		return netip.AddrPort{}, false
	}
	port, err := strconv.ParseUint(portText, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(port)), true
}

// holds reports whether the process of dir, a folder in /proc, has link open.
// It is false for a process that this user may not look into.
func holds(dir, link string) bool {
	fds, err := os.Open(filepath.Join(dir, "fd"))
	if err != nil {
		return false
	}
	defer fds.Close()
	names, _ := fds.Readdirnames(-1)
	for _, name := range names {
		if target, err := os.Readlink(filepath.Join(fds.Name(), name)); err == nil && target == link {
			return true
		}
	}
	return false
}

// commandName reads the name of a process, which it chose itself: what cannot
// be printed safely is taken out.
func commandName(dir string) string {
	raw, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return ""
	}
	name := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, strings.TrimSpace(string(raw)))
	return name[:min(len(name), maxCommand)]
}
