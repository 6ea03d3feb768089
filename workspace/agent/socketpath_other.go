//go:build !linux

package agent

// shortSocketPath gives another name for a socket's path that the kernel takes,
// if it lies near the working directory.
func shortSocketPath(path string) (short string, release func(), err error) {
	return relativeSocketPath(path), func() {}, nil
}
