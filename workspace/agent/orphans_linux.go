package agent

import (
	"context"
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
	for _, pid := range childrenOf(os.Getpid()) {
		if !f.ours[pid] {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
}

// end kills every descendant that is left, until there is none, and lets
// nothing new begin.
func (f *family) end(ctx context.Context) {
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	for {
		left := descendantsOf(os.Getpid())
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		f.reap()
		if !sleep(ctx, 5*time.Millisecond) {
			return
		}
	}
}

// descendantsOf lists the living processes below pid.
func descendantsOf(pid int) []int {
	var out []int
	for todo := childrenOf(pid); len(todo) > 0; {
		child := todo[0]
		todo = append(todo[1:], childrenOf(child)...)
		if !isZombie(child) {
			out = append(out, child)
		}
	}
	return out
}

func childrenOf(pid int) []int {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []int
	for _, t := range tasks {
		b, err := os.ReadFile(dir + "/" + t.Name() + "/children")
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(field); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}

func isZombie(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true // gone
	}
	// The state follows the name, which may hold anything, in parentheses.
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	return !ok || strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}
