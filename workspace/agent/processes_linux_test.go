package agent

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// requireNothingLeft looks for processes that carry the test's mark in their
// environment or arguments.
func requireNothingLeft(t *testing.T) {
	t.Helper()
	names, err := os.ReadDir("/proc")
	require.NoError(t, err)
	var left []string
	for _, name := range names {
		if _, err := strconv.Atoi(name.Name()); err != nil {
			continue
		}
		for _, file := range []string{"environ", "cmdline"} {
			b, err := os.ReadFile("/proc/" + name.Name() + "/" + file)
			if err == nil && strings.Contains(string(b), testMark(t)+"\x00") {
				stat, _ := os.ReadFile("/proc/" + name.Name() + "/stat")
				args, _ := os.ReadFile("/proc/" + name.Name() + "/cmdline")
				left = append(left, string(stat)+" "+strings.ReplaceAll(string(args), "\x00", " "))
				break
			}
		}
	}
	require.Empty(t, left, "processes are left")
}

// alive reports whether a process runs.
func alive(pid string) bool {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return false
	}
	d, err := statOf(n)
	return err == nil && !d.dead
}
