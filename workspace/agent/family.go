package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// family is every process that the agent has started: scripts and services,
// each a process group of its own, and whatever has run away from those.
type family struct {
	dir string
	env []string

	// mu is held while a process is started and while orphans are reaped, so
	// that nobody reaps a child that its own starter waits for.
	mu    sync.Mutex
	ours  map[int]bool
	ended bool
}

var errFamilyEnded = errors.New("the agent is going down")

// member is one running process with its group.
type member struct {
	f      *family
	cmd    *exec.Cmd
	output chan struct{} // closed when its output has ended
	exited chan struct{}
	err    error // of its end, once exited is closed
}

// start runs argv with its output going to lines.
func (f *family) start(argv, env []string, dir string, lines *lineSplitter) (*member, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, env
	// A file and not a writer: a process that stays in the background keeps
	// the pipe, and nobody has to wait for it.
	cmd.Stdout, cmd.Stderr = w, w
	setGroup(cmd)
	f.mu.Lock()
	if f.ended {
		err = errFamilyEnded
	} else if err = cmd.Start(); err == nil {
		f.ours[cmd.Process.Pid] = true
	}
	f.mu.Unlock()
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	m := &member{f: f, cmd: cmd, output: make(chan struct{}), exited: make(chan struct{})}
	go func() {
		defer close(m.output)
		defer r.Close()
		lines.copy(r)
	}()
	go func() {
		m.err = cmd.Wait()
		f.mu.Lock()
		delete(f.ours, cmd.Process.Pid)
		f.mu.Unlock()
		close(m.exited)
	}()
	return m, nil
}

// outputGrace is how long the last output of a process that has ended is
// waited for, if something that it left behind still holds the pipe.
const outputGrace = 200 * time.Millisecond

// drained waits for the output of a process that has exited.
func (m *member) drained() {
	select {
	case <-m.output:
	case <-time.After(outputGrace):
	}
}

// stop ends the group: asked first, and killed when ctx is over.
func (m *member) stop(ctx context.Context) {
	m.signal(syscall.SIGTERM)
	select {
	case <-m.exited:
	case <-ctx.Done():
	}
	// What is left of the group was left behind by its leader.
	m.signal(syscall.SIGKILL)
	<-m.exited
}

func (m *member) signal(sig syscall.Signal) { signalGroup(m.cmd.Process.Pid, sig) }

// exitError says how a process ended, for a person; nil for success.
func exitError(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return fmt.Errorf("ended by signal %s", ws.Signal())
		}
		return fmt.Errorf("exit status %d", exit.ExitCode())
	}
	return err
}
