package provision

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// How often the host looks again when it waits for something that does not report: at first, and at most.
const (
	shortestPause = 2 * time.Millisecond
	longestPause  = 100 * time.Millisecond
)

// host is the real system.
type host struct {
	bootID string
}

func newHost() (*host, error) {
	id, err := bootID()
	if err != nil {
		return nil, err
	}
	return &host{bootID: id}, nil
}

func (h *host) start(c command) (process, error) {
	cmd := &exec.Cmd{
		Path: c.argv[0], Args: c.argv, Dir: c.dir, Env: c.env, Stdout: c.output, Stderr: c.output,
		// A session of its own is out of reach of the terminal's signals, and marks the processes in it.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// Even if it has ended by now it is not reaped, so that this is no other process of the same ID.
	info, err := stat(cmd.Process.Pid)
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return &hostProcess{
		host: h, cmd: cmd,
		pack: pack{
			owner: c.owner, workspaceID: c.workspaceID,
			leader: identity{PID: info.pid, StartTime: info.start, BootID: h.bootID},
		},
	}, nil
}

func (h *host) find(owner, workspaceID string, id identity) (process, bool) {
	if id.BootID != h.bootID || !running(id) {
		return nil, false
	}
	// A record that was copied with its directory names a process of another server.
	if marks, known := marksOf(id.PID); known && (marks.owner != owner || marks.workspaceID != workspaceID) {
		return nil, false
	}
	return &hostProcess{host: h, pack: pack{owner: owner, workspaceID: workspaceID, leader: id}}, true
}

func (h *host) marked(owner string) ([]string, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, p := range all {
		if p.zombie || p.pid == os.Getpid() {
			continue
		}
		if marks, ok := marksOf(p.pid); ok && marks.owner == owner {
			ids = append(ids, marks.workspaceID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

func (h *host) sweep(ctx context.Context, owner, workspaceID string) error {
	p := pack{owner: owner, workspaceID: workspaceID}
	return p.kill(ctx)
}

// hostProcess is a process of the host. cmd is nil if it was adopted.
type hostProcess struct {
	host *host
	cmd  *exec.Cmd
	pack pack
}

func (p *hostProcess) identity() identity { return p.pack.leader }

func (p *hostProcess) wait(ctx context.Context) error { return waitExit(ctx, p.pack.leader) }

func (p *hostProcess) terminate() error {
	// While the leader is there, as a zombie even, no other process group can have its ID.
	if info, err := stat(p.pack.leader.PID); err != nil || info.start != p.pack.leader.StartTime {
		return nil
	}
	// Members that leave the group before they end are remembered by this.
	if _, err := p.pack.members(); err != nil {
		return err
	}
	err := syscall.Kill(-p.pack.leader.PID, syscall.SIGTERM)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

func (p *hostProcess) waitGroup(ctx context.Context) error {
	return pollUntil(ctx, func() (bool, error) {
		members, err := p.pack.members()
		inGroup := func(i processInfo) bool { return i.pgid == p.pack.leader.PID }
		return !slices.ContainsFunc(members, inGroup), err
	})
}

func (p *hostProcess) kill(ctx context.Context) error { return p.pack.kill(ctx) }

func (p *hostProcess) reap() Status {
	if p.cmd == nil {
		return Status{}
	}
	_ = p.cmd.Wait() // a status other than 0 is an error to it, but not here
	if p.cmd.ProcessState == nil {
		return Status{}
	}
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return Status{}
	case status.Signaled():
		return Status{Known: true, Signal: status.Signal()}
	default:
		return Status{Known: true, Code: status.ExitStatus()}
	}
}

func (p *hostProcess) release() {
	if p.cmd != nil {
		_ = p.cmd.Process.Release() // cannot fail for a process that was not released
	}
}

// running tells whether the very process runs; a zombie does not.
func running(id identity) bool {
	info, err := stat(id.PID)
	return err == nil && info.start == id.StartTime && !info.zombie
}

// pollUntil asks done again and again, with growing pauses, until it is true or fails, or ctx is done.
func pollUntil(ctx context.Context, done func() (bool, error)) error {
	pause := shortestPause
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		pause = min(2*pause, longestPause)
		timer.Reset(pause)
	}
}
