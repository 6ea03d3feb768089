//go:build !linux

package provision

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Systems other than Linux are asked through ps (POSIX, and lstart, which Darwin and the BSDs have). They do not show
// sessions and environments in a way that can be relied on, so that a process which has left the process group is found
// only as long as its parent lives.

// psColumns is what ps prints: four fields and the start time, which has five.
const psColumns = "pid=,ppid=,pgid=,stat=,lstart="

// bootID is empty: the start times of ps are times of the calendar, and name a process across boots.
func bootID() (string, error) { return "", nil }

// stat describes a process. It is fs.ErrNotExist if there is none.
func stat(pid int) (processInfo, error) {
	found, err := ps("-o", psColumns, "-p", strconv.Itoa(pid))
	if err != nil || len(found) == 0 {
		return processInfo{}, fmt.Errorf("process %d: %w", pid, fs.ErrNotExist) // ps fails when it finds none
	}
	return found[0], nil
}

// processes describes every process.
func processes() ([]processInfo, error) { return ps("-A", "-o", psColumns) }

func ps(args ...string) ([]processInfo, error) {
	cmd := exec.Command("ps", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []processInfo
	for line := range bytes.Lines(out) {
		info, err := parsePS(string(line))
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	return all, nil
}

// parsePS reads a line of ps.
func parsePS(line string) (processInfo, error) {
	fields := strings.Fields(line)
	if len(fields) != 9 {
		return processInfo{}, fmt.Errorf("unexpected line of ps %q", line)
	}
	info := processInfo{zombie: strings.HasPrefix(fields[3], "Z")}
	for i, into := range []*int{&info.pid, &info.ppid, &info.pgid} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			return processInfo{}, fmt.Errorf("unexpected line of ps %q: %w", line, err)
		}
		*into = n
	}
	start, err := time.Parse("Mon Jan 2 15:04:05 2006", strings.Join(fields[4:], " "))
	if err != nil {
		return processInfo{}, fmt.Errorf("unexpected line of ps %q: %w", line, err)
	}
	info.start = uint64(start.Unix())
	return info, nil
}

// marksOf knows nothing.
func marksOf(int) (marks, bool) { return marks{}, false }

// waitExit returns when a process has ended, whether it is a child or not, or with ctx's error. A child stays to be
// reaped.
func waitExit(ctx context.Context, id identity) error {
	return pollUntil(ctx, func() (bool, error) { return !running(id), nil })
}
