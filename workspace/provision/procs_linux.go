package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bootID names this run of the kernel (random(4)).
func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("processes cannot be told apart without /proc: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// stat describes a process. It is fs.ErrNotExist if there is none.
func stat(pid int) (processInfo, error) {
	data, err := os.ReadFile(procPath(pid, "stat"))
	if errors.Is(err, syscall.ESRCH) {
		err = fs.ErrNotExist // it ended while it was read
	}
	if err != nil {
		return processInfo{}, err
	}
	return parseStat(data)
}

// parseStat reads /proc/PID/stat (proc_pid_stat(5)).
func parseStat(data []byte) (processInfo, error) {
	wrong := fmt.Errorf("unexpected process status %q", data)
	// The second field, the name in parentheses, may hold anything.
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return processInfo{}, wrong
	}
	fields := strings.Fields(string(data[end+1:])) // from field 3, the state
	if len(fields) < 20 {
		return processInfo{}, wrong
	}
	info := processInfo{zombie: fields[0] == "Z" || fields[0] == "X"}
	texts := append([]string{strings.TrimSpace(string(data[:open]))}, fields[1:4]...)
	for i, into := range []*int{&info.pid, &info.ppid, &info.pgid, &info.session} {
		n, err := strconv.Atoi(texts[i])
		if err != nil {
			return processInfo{}, wrong
		}
		*into = n
	}
	start, err := strconv.ParseUint(fields[19], 10, 64) // field 22: ticks since the boot
	if err != nil {
		return processInfo{}, wrong
	}
	info.start = start
	return info, nil
}

// processes describes every process.
func processes() ([]processInfo, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	all := make([]processInfo, 0, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		info, err := stat(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	return all, nil
}

// marksOf reads the marks in a process's initial environment. It is false for a process without any, and for one that
// this user may not look into.
func marksOf(pid int) (marks, bool) {
	environ, err := os.ReadFile(procPath(pid, "environ"))
	if err != nil {
		return marks{}, false
	}
	m := marks{owner: lookup(environ, envOwner), workspaceID: lookup(environ, envWorkspaceID)}
	return m, m != marks{}
}

// lookup finds a variable in a NUL-separated environment.
func lookup(environ []byte, key string) string {
	prefix := []byte(key + "=")
	for pair := range bytes.SplitSeq(environ, []byte{0}) {
		if value, ok := bytes.CutPrefix(pair, prefix); ok {
			return string(value)
		}
	}
	return ""
}

// waitExit returns when a process has ended, whether it is a child or not, or with ctx's error. A child stays to be
// reaped.
func waitExit(ctx context.Context, id identity) error {
	if err := waitHandle(ctx, id); err == nil || ctx.Err() != nil {
		return err
	}
	// A kernel without such handles (before 5.10), or no handle left.
	return pollUntil(ctx, func() (bool, error) { return !running(id), nil })
}

// waitHandle waits by means of a handle of the process (pidfd_open(2)), which becomes readable when it ends.
func waitHandle(ctx context.Context, id identity) error {
	fd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return err
	}
	handle := os.NewFile(uintptr(fd), "pidfd")
	defer func() { _ = handle.Close() }()
	if !running(id) {
		return nil // it has ended, and the handle may be of another
	}
	conn, err := handle.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = handle.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = conn.Read(func(fd uintptr) bool {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && ready > 0
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func procPath(pid int, file string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), file)
}
