package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/tunneler/tunneler/fsm"
)

func newGraphCommand(p *program) *cobra.Command {
	var format string
	var all bool
	cmd := &cobra.Command{
		Use:   "graph",
		Short: "Print the state graph of the tunneler",
		Long: `Print the state graph of the tunneler, from the very table that the program
runs. Edges read "trigger [guards] / effects".`,
		Example: "  tunnel graph --format dot | dot -Tsvg > states.svg",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			for _, f := range fsm.GraphFormats() {
				if f == format {
					return fsm.WriteGraph(p.out, format, all)
				}
			}
			return usagef("unknown format %q: expected %s", format, strings.Join(fsm.GraphFormats(), ", "))
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", "dot, mermaid, json or table")
	cmd.Flags().BoolVar(&all, "all", false, "show what is ignored or unexpected as well")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(fsm.GraphFormats(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
