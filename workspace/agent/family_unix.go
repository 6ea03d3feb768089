//go:build unix

package agent

import (
	"os/exec"
	"syscall"
)

func setGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// signalGroup signals a whole process group; one that is gone is no matter.
func signalGroup(pid int, sig syscall.Signal) { _ = syscall.Kill(-pid, sig) }
