package main

import (
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// globalFlags are the flags of every command.
type globalFlags struct {
	server  string
	dataDir string
	output  string
	verbose int
}

func newRoot(p *program) *cobra.Command {
	root := &cobra.Command{
		Use:   "tunnel",
		Short: "An encrypted tunnel to a workspace, whatever state it is in",
		Long: `tunnel gives you a working, encrypted connection to a workspace that may be
stopped, still building, or in the middle of being replaced: it starts the
workspace if it must, waits for its agent, connects end to end, forwards ports,
and rides out what can be ridden out.

Without --server an embedded server runs inside the command, with its data in
the data directory.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := root.PersistentFlags()
	f.StringVar(&p.flags.server, "server", "", "URL of the coordinator (default: $TUNNEL_SERVER, else the embedded server)")
	f.StringVar(&p.flags.dataDir, "data-dir", "", "data directory of the embedded server (default: $TUNNEL_DATA_DIR, else the user's data directory)")
	f.CountVarP(&p.flags.verbose, "verbose", "v", "show more; twice for everything")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &failure{err: err, code: exitUsage, hints: []string{"see `" + cmd.CommandPath() + " --help`"}}
	})
	root.AddCommand(
		newUpCommand(p), newServeCommand(p), newAgentCommand(p), newWorkspacesCommand(p), newTemplatesCommand(p),
		newGraphCommand(p), newVersionCommand(p), newDemoServiceCommand(p),
	)
	root.InitDefaultCompletionCmd()
	usageErrors(root)
	return root
}

// usageErrors makes every complaint about arguments a usage error, with the
// way to the help.
func usageErrors(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return &failure{err: err, code: exitUsage, hints: []string{"see `" + cmd.CommandPath() + " --help`"}}
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		usageErrors(c)
	}
}

// outputFlag adds -o to a command.
func outputFlag(p *program, cmd *cobra.Command) {
	cmd.Flags().StringVarP(&p.flags.output, "output", "o", "text", "what to print: text or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// wantJSON checks -o.
func (p *program) wantJSON() (bool, error) {
	switch p.flags.output {
	case "text", "":
		return false, nil
	case "json":
		return true, nil
	}
	return false, usagef("unknown output %q: expected text or json", p.flags.output)
}

// logger is for operators: quiet unless asked, on standard error.
func (p *program) logger(level zapcore.Level) *zap.Logger {
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(enc), zapcore.AddSync(lineWriter{p.ui}), level))
}

// logLevel follows -v: errors only, then what is going on, then everything.
func (p *program) logLevel() zapcore.Level {
	switch p.flags.verbose {
	case 0:
		return zapcore.ErrorLevel
	case 1:
		return zapcore.InfoLevel
	default:
		return zapcore.DebugLevel
	}
}

// lineWriter puts log lines above the live line.
type lineWriter struct{ ui *ui }

// Write implements io.Writer.
func (w lineWriter) Write(b []byte) (int, error) {
	w.ui.mu.Lock()
	defer w.ui.mu.Unlock()
	w.ui.clear()
	n, err := w.ui.w.Write(b)
	w.ui.draw()
	return n, err
}
