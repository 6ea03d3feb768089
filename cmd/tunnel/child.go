package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// childGrace is how long the command after -- may take to end when it is asked to.
const childGrace = 5 * time.Second

// child is the command that `up` runs once the tunnel is up. It shares our
// terminal and process group, so that Ctrl-C reaches it as it would alone.
type child struct {
	cmd    *exec.Cmd
	exited <-chan int
	done   chan struct{}
}

func startChild(p *program, argv, env []string) (*child, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.in, p.out, p.errOut
	if p.json != nil {
		cmd.Stdout = p.errOut // standard output is for the events
	}
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = time.Second
	p.ui.endLive()
	if err := cmd.Start(); err != nil {
		code := 126
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			code = 127 // as a shell has it
		}
		return nil, &failure{err: fmt.Errorf("cannot run %s: %w", argv[0], err), code: code}
	}
	exited := make(chan int, 1)
	c := &child{cmd: cmd, exited: exited, done: make(chan struct{})}
	go func() {
		err := cmd.Wait()
		close(c.done)
		exited <- exitCode(cmd, err)
	}()
	return c, nil
}

func exitCode(cmd *exec.Cmd, err error) int {
	state := cmd.ProcessState
	if state == nil {
		return exitFailed
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	if code := state.ExitCode(); code != 0 || err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return code
	}
	return exitFailed
}

// stop lets the command end by the signal that reached it too, passes on one
// that did not, and insists after a while.
func (c *child) stop(sig os.Signal) {
	if sig != os.Interrupt {
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
	}
	go func() {
		select {
		case <-c.done:
		case <-time.After(childGrace):
			c.kill()
		}
	}()
}

// kill ends the command: it is asked first, for a moment.
func (c *child) kill() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(childGrace):
		_ = c.cmd.Process.Kill()
	}
}
