package main

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

var updateDocs = flag.Bool("update.docs", false, "rewrite the generated part of docs/cli.md")

const generatedMark = "<!-- Below this line: generated from the program by `make docs`; do not edit. -->\n"

// TestDocsOfTheCommandLineAreTheProgram fails when docs/cli.md is not what the
// program's own help says.
func TestDocsOfTheCommandLineAreTheProgram(t *testing.T) {
	const path = "../../docs/cli.md"
	have, err := os.ReadFile(path)
	require.NoError(t, err)
	head, _, ok := strings.Cut(string(have), generatedMark)
	require.True(t, ok, "docs/cli.md has lost its mark")
	want := head + generatedMark + commandHelp(t)
	if *updateDocs {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(have), "docs/cli.md is stale: run `make docs`")
}

func commandHelp(t *testing.T) string {
	var out bytes.Buffer
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" && cmd.HasParent() && cmd.Parent().HasParent() {
			return
		}
		out.WriteString("\n### " + cmd.CommandPath() + "\n\n```text\n")
		cmd.SetOut(&out)
		require.NoError(t, cmd.Help())
		out.WriteString("```\n")
		if cmd.Name() == "completion" {
			return // one for each shell, all alike
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	root := newRoot(&program{ui: newUI(&out), out: &out, errOut: &out})
	walk(root)
	return out.String()
}
