package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// adopt makes the agent the parent of what its children leave behind, so that
// nothing of a workspace can run away from it, and reaps those until ctx ends.
func (f *family) adopt(ctx context.Context) {
	if unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != nil {
		return // then the provisioner finds them by their environment
	}
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	defer signal.Stop(died)
	for {
		select {
		case <-died:
			f.reap()
		case <-ctx.Done():
			return
		}
	}
}

// reap collects the dead among the children that were adopted.
func (f *family) reap() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, child := range descendantsOf(os.Getpid()) {
		if child.parent == os.Getpid() && child.dead && !f.ours[child.pid] {
			_, _ = syscall.Wait4(child.pid, nil, syscall.WNOHANG, nil)
		}
	}
}

// leave lets what a process has left behind live on until end, which finds it.
func (f *family) leave(*member) {}

// endTimeout bounds the wait for processes that were killed: the kernel ends
// them at once unless they hang in it.
const endTimeout = 5 * time.Second

// end kills every descendant that is left, until there is none, and lets
// nothing new begin. The error says what could not be killed.
func (f *family) end(ctx context.Context) error {
	f.close()
	defer f.closeOutputs()
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	// A look at /proc is no snapshot: a process whose parent dies meanwhile may
	// be seen as nobody's. By the next look it is ours.
	for calm := 0; ; {
		var left []string
		for _, d := range descendantsOf(os.Getpid()) {
			if !d.dead {
				left = append(left, strconv.Itoa(d.pid))
				_ = syscall.Kill(d.pid, syscall.SIGKILL)
			}
		}
		f.reap()
		if calm++; len(left) > 0 {
			calm = 0
		}
		if calm == 2 {
			return nil
		}
		if !sleep(ctx, 5*time.Millisecond) {
			return fmt.Errorf("processes that cannot be killed are left: %s", strings.Join(left, ", "))
		}
	}
}

// descendant is a process below another.
type descendant struct {
	pid, parent int
	dead        bool // and not reaped
}

// descendantsOf lists the processes below pid. It reads all of /proc, because
// not every kernel keeps lists of children.
func descendantsOf(pid int) []descendant {
	names, err := readDirNames("/proc")
	if err != nil {
		return nil
	}
	children := make(map[int][]descendant)
	for _, name := range names {
		if child, err := strconv.Atoi(name); err == nil {
			if d, err := statOf(child); err == nil {
				children[d.parent] = append(children[d.parent], d)
			}
		}
	}
	var out []descendant
	for todo := children[pid]; len(todo) > 0; todo = todo[1:] {
		out = append(out, todo[0])
		todo = append(todo, children[todo[0].pid]...)
	}
	return out
}

func readDirNames(path string) ([]string, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// statOf reads /proc/PID/stat (proc_pid_stat(5)).
func statOf(pid int) (descendant, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return descendant{}, err
	}
	// State and parent follow the name, which is in parentheses and may hold
	// anything.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 2 {
		return descendant{}, errors.New("unexpected process status")
	}
	parent, err := strconv.Atoi(string(fields[1]))
	return descendant{pid: pid, parent: parent, dead: fields[0][0] == 'Z' || fields[0][0] == 'X'}, err
}
