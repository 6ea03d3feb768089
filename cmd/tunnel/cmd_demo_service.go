package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/tunneler/tunneler/workspace/template/demo"
)

// newDemoServiceCommand is the service of the built-in template. It is hidden:
// people meet it as a workspace.
func newDemoServiceCommand(p *program) *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:    "demo-service",
		Short:  "Run the web service of the demo template",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			l, err := demo.Listen(ctx, listen)
			if err != nil {
				return err
			}
			return demo.Serve(ctx, l, demo.Config{WorkspaceName: os.Getenv("TUNNELER_WORKSPACE_NAME"), Logger: p.logger(p.logLevel())})
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:3000", "HOST:PORT or unix:PATH")
	return cmd
}
