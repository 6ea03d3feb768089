// Command tunnel gives a developer a working, encrypted connection to a
// workspace, and is its own server, gateway and agent.
//
// It is the only place that wires the project's parts together: one file per
// command, and the words, exit codes and files that the commands share.
package main

import (
	"context"
	"io"
	"os"
)

func main() {
	// quic-go would warn on the standard logger, in its own words, when the
	// system caps UDP buffers; what it costs shows in a speed test.
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Main runs the program and returns its exit code, so that tests can run it
// in their own process.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{in: stdin, out: stdout, errOut: stderr, ui: newUI(stderr)}
	root := newRoot(p)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(context.Background())
	return p.finish(err)
}
