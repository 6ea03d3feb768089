package fsm_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheLibraryPageIsCompiled: every piece of Go in docs/library.md stands in
// example_test.go, word for word, where it is compiled and run.
func TestTheLibraryPageIsCompiled(t *testing.T) {
	page, err := os.ReadFile("../docs/library.md")
	require.NoError(t, err)
	source, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	pieces := strings.Split(string(page), "```go\n")[1:]
	require.Len(t, pieces, 5)
	for _, piece := range pieces {
		code, _, whole := strings.Cut(piece, "```")
		require.True(t, whole, "a piece of code has no end")
		for part := range strings.SplitSeq(code, "\n\n") {
			require.Contains(t, string(source), strings.TrimRight(part, "\n"), "docs/library.md shows code that example_test.go does not have")
		}
	}
}
