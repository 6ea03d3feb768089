package provision

import (
	"context"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatBelongsToAWorkspace(t *testing.T) {
	const self = 99
	ours := marks{"owner", "ws"}
	leader := identity{PID: 10, StartTime: 100}
	for name, c := range map[string]struct {
		all    []processInfo
		marked map[int]marks
		known  map[int]uint64
		want   []int
	}{
		"the leader, its group and its session": {
			all: []processInfo{
				{pid: 10, ppid: 1, pgid: 10, session: 10, start: 100}, {pid: 11, ppid: 1, pgid: 10, session: 10, start: 101},
				{pid: 12, ppid: 1, pgid: 12, session: 10, start: 102}, {pid: 20, ppid: 1, pgid: 20, session: 20, start: 50},
			},
			want: []int{10, 11, 12},
		},
		"members while the leader is a zombie": {
			all: []processInfo{
				{pid: 10, ppid: 1, pgid: 10, session: 10, start: 100, zombie: true}, {pid: 11, ppid: 1, pgid: 10, session: 10, start: 101},
			},
			want: []int{11},
		},
		"nobody in a session of the same number once the leader is gone": {
			all: []processInfo{{pid: 11, ppid: 1, pgid: 10, session: 10, start: 101}},
		},
		"nobody in the session of a later process with the leader's number": {
			all: []processInfo{
				{pid: 10, ppid: 1, pgid: 10, session: 10, start: 999}, {pid: 11, ppid: 10, pgid: 10, session: 10, start: 1000},
			},
		},
		"the marked, wherever they are": {
			all:    []processInfo{{pid: 30, ppid: 1, pgid: 30, session: 30}, {pid: 31, ppid: 1, pgid: 31, session: 31}, {pid: 32, ppid: 1}},
			marked: map[int]marks{30: ours, 31: {"owner", "another ws"}, 32: {"another owner", "ws"}},
			want:   []int{30},
		},
		"the descendants of all of these": {
			all: []processInfo{
				{pid: 32, ppid: 31}, {pid: 30, ppid: 1}, {pid: 31, ppid: 30, pgid: 31, session: 31}, {pid: 33, ppid: 1},
			},
			marked: map[int]marks{30: ours},
			want:   []int{30, 31, 32},
		},
		"who was found before, unless the number is another's by now": {
			all:   []processInfo{{pid: 40, ppid: 1, start: 400}, {pid: 41, ppid: 1, start: 411}},
			known: map[int]uint64{40: 400, 41: 401},
			want:  []int{40},
		},
		"never this very process, nor what it runs for others": {
			all:    []processInfo{{pid: self, ppid: 30}, {pid: 50, ppid: self}, {pid: 30, ppid: 1}},
			marked: map[int]marks{30: ours, self: ours},
			want:   []int{30},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := pack{owner: "owner", workspaceID: "ws", leader: leader, known: c.known}
			var got []int
			for _, i := range p.among(c.all, self, func(pid int) (marks, bool) { m, ok := c.marked[pid]; return m, ok }) {
				got = append(got, i.pid)
			}
			require.ElementsMatch(t, c.want, got)
		})
	}
}

func TestWhatDoesNotEndInTimeIsReported(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Wait() }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := pack{workspaceID: "ws", known: map[int]uint64{cmd.Process.Pid: startTime(t, cmd.Process.Pid)}}
	require.Equal(t, &StragglerError{WorkspaceID: "ws", PIDs: []int{cmd.Process.Pid}}, p.kill(ctx))
}

func TestAStragglerIsNamed(t *testing.T) {
	err := &StragglerError{WorkspaceID: "ws-1", PIDs: []int{4, 5}}
	require.EqualError(t, err, "processes 4 5 of workspace ws-1 do not end: end them by hand")
}
