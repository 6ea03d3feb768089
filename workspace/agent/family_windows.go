package agent

import (
	"os"
	"os/exec"
	"syscall"
)

func setGroup(*exec.Cmd) {}

// signalGroup ends the process: Windows knows no groups and no signals.
func signalGroup(pid int, _ syscall.Signal) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill()
	}
}
