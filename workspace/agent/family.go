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
	env []string

	// mu is held while a process is started and while orphans are reaped, so
	// that nobody reaps a child that its own starter waits for.
	mu      sync.Mutex
	ours    map[int]bool
	outputs map[*output]bool
	left    []*member //nolint:unused // whose groups live on; only where nothing else finds them, which is not on Linux
	ended   bool
}

func newFamily() *family {
	return &family{ours: make(map[int]bool), outputs: make(map[*output]bool)}
}

var errFamilyEnded = errors.New("the agent is going down")

// member is one running process with its group.
type member struct {
	f      *family
	cmd    *exec.Cmd
	output *output
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
	m := &member{f: f, cmd: cmd, exited: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		err = errFamilyEnded
	} else {
		err = cmd.Start()
	}
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	f.ours[cmd.Process.Pid] = true
	m.output = capture(r, lines)
	f.outputs[m.output] = true
	go func() {
		<-m.output.ended
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.outputs, m.output)
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

// groupPoll is the time between two looks at what is left of a group.
const groupPoll = 10 * time.Millisecond

// stop ends the group: asked first, and killed when ctx is over. It returns
// when its leader has ended and its output is in the log.
func (m *member) stop(ctx context.Context) {
	m.signal(syscall.SIGTERM)
	select {
	case <-m.exited:
	case <-ctx.Done():
	}
	// The others of the group were asked as well and have the same time.
	for ctx.Err() == nil && groupLives(m.cmd.Process.Pid) {
		sleep(ctx, groupPoll)
	}
	m.killGroup()
	<-m.exited
	m.output.settle()
}

// killGroup ends what is left of the group.
func (m *member) killGroup() { m.signal(syscall.SIGKILL) }

// groupTimeout bounds the wait for a group that was killed.
const groupTimeout = time.Second

// clear ends what a leader that has ended left of its group, so that nothing of
// it is in the way of the next.
func (m *member) clear(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, groupTimeout)
	defer cancel()
	m.killGroup()
	for ctx.Err() == nil && groupLives(m.cmd.Process.Pid) {
		sleep(ctx, groupPoll)
	}
	m.output.settle()
}

func (m *member) signal(sig syscall.Signal) { signalGroup(m.cmd.Process.Pid, sig) }

// close begins the family's end: nothing new starts.
func (f *family) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
}

// closeOutputs ends the reading of pipes that somebody still holds.
func (f *family) closeOutputs() {
	f.mu.Lock()
	open := make([]*output, 0, len(f.outputs))
	for o := range f.outputs {
		open = append(open, o)
	}
	f.mu.Unlock()
	for _, o := range open {
		o.close()
	}
}

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
