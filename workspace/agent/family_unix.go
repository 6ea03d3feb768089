//go:build unix

package agent

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

func setGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// signalGroup signals a whole process group; one that is gone is no matter.
func signalGroup(pid int, sig syscall.Signal) { _ = syscall.Kill(-pid, sig) }

// groupLives reports whether the process group has a member.
func groupLives(pid int) bool { return !errors.Is(syscall.Kill(-pid, 0), syscall.ESRCH) }

// readNow reads what a pipe holds, and 0 bytes if that is nothing.
func readNow(r *os.File, buf []byte) int {
	conn, err := r.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	_ = conn.Read(func(fd uintptr) bool { // it fails only if r is closed
		n, _ = syscall.Read(int(fd), buf)
		return true
	})
	return max(n, 0)
}
