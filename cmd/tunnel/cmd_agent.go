package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"github.com/tunneler/tunneler/workspace/agent"
)

func newAgentCommand(p *program) *cobra.Command {
	cfg := agent.Config{Version: version}
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent of a workspace",
		Long: `Run the agent of a workspace: the process inside it that tunnels end at. A
server starts it by itself for workspaces that it runs; start it yourself for a
workspace whose template says "provisioner: none", with a token that
"tunnel workspaces agent-token" has written.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			if err := agentDefaults(p, &cfg); err != nil {
				return err
			}
			cfg.Logger = p.logger(min(p.logLevel(), zapcore.WarnLevel))
			return agent.Run(ctx, cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.TokenFile, "token-file", "", "file with the agent's token (default: $TUNNEL_AGENT_TOKEN_FILE)")
	f.StringVar(&cfg.Dir, "dir", "", "the workspace's directory (default: $TUNNELER_WORKSPACE_DIR, else the working directory)")
	f.StringSliceVar(&cfg.Listen, "listen", nil, "UDP addresses to take tunnels at (default: loopback for a server on loopback, else all)")
	return cmd
}

// agentDefaults fills in what the provisioner tells by the environment, and
// goes to the workspace's directory: paths of sockets are relative to it.
func agentDefaults(p *program, cfg *agent.Config) error {
	switch {
	case p.flags.server != "":
		cfg.Server = p.flags.server
	case os.Getenv("TUNNEL_SERVER_FILE") != "":
		cfg.ServerFile = os.Getenv("TUNNEL_SERVER_FILE")
	default:
		cfg.Server = os.Getenv("TUNNEL_SERVER")
	}
	if cfg.Server != "" {
		url, err := normalServer(cfg.Server)
		if err != nil {
			return err
		}
		cfg.Server = url
	}
	if cfg.Server == "" && cfg.ServerFile == "" {
		return usagef("the agent needs to know its server: give --server")
	}
	if cfg.TokenFile == "" {
		cfg.TokenFile = os.Getenv("TUNNEL_AGENT_TOKEN_FILE")
	}
	if cfg.TokenFile == "" {
		return usagef("the agent needs its token: give --token-file")
	}
	// Before we go elsewhere: the path is the caller's.
	path, err := filepath.Abs(cfg.TokenFile)
	if err != nil {
		return err
	}
	cfg.TokenFile = path
	if cfg.Dir == "" {
		cfg.Dir = os.Getenv("TUNNELER_WORKSPACE_DIR")
	}
	if cfg.Dir != "" {
		if err := os.Chdir(cfg.Dir); err != nil {
			return err
		}
	}
	return nil
}
