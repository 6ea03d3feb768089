package agent

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// shortSocketPath gives another name for a socket's path that the kernel takes:
// by way of the working directory, or of a handle of its directory (proc(5)).
func shortSocketPath(path string) (short string, release func(), err error) {
	path = relativeSocketPath(path)
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path)), func() { _ = unix.Close(fd) }, nil
}
