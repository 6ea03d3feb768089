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

// groupLives: without groups, nothing is left of one once its leader has ended.
func groupLives(int) bool { return false }

// readNow is not called: pipes have no deadline that could ask for it.
func readNow(*os.File, []byte) int { return 0 }
