package provision

import (
	"context"
	"errors"
	"os"
	"slices"
	"syscall"
)

// processInfo is what the system says of one process.
type processInfo struct {
	pid, ppid, pgid, session int
	// start is when it started, in the unit of identity.StartTime.
	start uint64
	// zombie is set for one that has ended and was not reaped.
	zombie bool
}

// marks are what the environment of a process says of its origin.
type marks struct{ owner, workspaceID string }

// A pack is every process of one workspace that can be found: the members of the leader's group and session, those
// whose environment bears the workspace's marks, whatever has descended from one of these while its parents lived, and
// whoever was once found to be any of it.
//
// What has left the session, has thrown its environment away and has outlived its parent before anybody looked is not
// found.
type pack struct {
	owner, workspaceID string
	// leader is the zero identity if none is known.
	leader identity
	// known holds the start times of the processes that were found before.
	known map[int]uint64
}

// members looks for the pack's processes that run.
func (p *pack) members() ([]processInfo, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	return p.among(all, os.Getpid(), marksOf), nil
}

// among picks the pack's processes out of all. self, this very process, is never one.
func (p *pack) among(all []processInfo, self int, marksOf func(pid int) (marks, bool)) []processInfo {
	// The numbers of a group and a session are not used again as long as their leader is there; later they may name
	// somebody else's.
	led := slices.ContainsFunc(all, func(i processInfo) bool {
		return p.leader.PID != 0 && i.pid == p.leader.PID && i.start == p.leader.StartTime
	})
	children := make(map[int][]processInfo)
	var queue []processInfo
	for _, i := range all {
		if i.pid == self {
			continue
		}
		children[i.ppid] = append(children[i.ppid], i)
		if start, seen := p.known[i.pid]; seen && start == i.start {
			queue = append(queue, i)
			continue
		}
		if led && (i.session == p.leader.PID || i.pgid == p.leader.PID) {
			queue = append(queue, i)
			continue
		}
		if m, ok := marksOf(i.pid); ok && m == (marks{p.owner, p.workspaceID}) {
			queue = append(queue, i)
		}
	}
	found := make(map[int]uint64)
	var members []processInfo
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		if _, again := found[i.pid]; again {
			continue
		}
		found[i.pid] = i.start
		queue = append(queue, children[i.pid]...)
		if !i.zombie {
			members = append(members, i)
		}
	}
	p.known = found
	return members
}

// kill ends every member. It looks twice before it believes that there is none: a process is without marks for a
// moment while it executes another program.
func (p *pack) kill(ctx context.Context) error {
	var members []processInfo
	empty := 0
	err := pollUntil(ctx, func() (bool, error) {
		var err error
		if members, err = p.members(); err != nil {
			return false, err
		}
		for _, i := range members {
			if err := killProcess(i); err != nil {
				return false, err
			}
		}
		if empty++; len(members) > 0 {
			empty = 0
		}
		return empty == 2, nil
	})
	if err == nil || len(members) == 0 || ctx.Err() == nil {
		return err
	}
	stragglers := &StragglerError{WorkspaceID: p.workspaceID}
	for _, i := range members {
		stragglers.PIDs = append(stragglers.PIDs, i.pid)
	}
	slices.Sort(stragglers.PIDs)
	return stragglers
}

// killProcess kills the very process that was looked at, and no other that has its ID by now.
func killProcess(i processInfo) error {
	handle, err := os.FindProcess(i.pid) // on Linux a handle of the process, not of the number
	if err != nil {
		return nil //nolint:nilerr // it has ended
	}
	defer func() { _ = handle.Release() }()
	if now, err := stat(i.pid); err != nil || now.start != i.start {
		return nil //nolint:nilerr // it has ended
	}
	err = handle.Signal(syscall.SIGKILL)
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.EPERM) {
		return nil // one that may not be killed turns up among the stragglers
	}
	return err
}
