package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"
)

func newServeCommand(p *program) *cobra.Command {
	cfg := serverConfig{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a server: coordinator, store and provisioner",
		Long: `Run a server until it is interrupted. When it runs for the first time it prints
a token for you and keeps it in your configuration; after that, other commands
find it there for this server's URL. The workspaces that it has started go on
when it ends, and are adopted when it comes back.

Without TLS it listens on loopback only.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.serve(cmd.Context(), cfg) },
	}
	f := cmd.Flags()
	f.StringVar(&cfg.listen, "listen", "127.0.0.1:7443", "HOST:PORT to listen on")
	f.StringVar(&cfg.templates, "templates", "", "directory of templates besides the built-in ones (default: templates in the data directory)")
	f.StringVar(&cfg.tlsCert, "tls-cert", "", "file of the TLS certificate, PEM")
	f.StringVar(&cfg.tlsKey, "tls-key", "", "file of its private key, PEM")
	cmd.MarkFlagsRequiredTogether("tls-cert", "tls-key")
	return cmd
}

func (p *program) serve(ctx context.Context, cfg serverConfig) error {
	if err := checkListen(cfg.listen, cfg.tlsCert != ""); err != nil {
		return err
	}
	dir, err := p.dataDir()
	if err != nil {
		return err
	}
	if err := privateDir(dir); err != nil {
		return err
	}
	cfg.dir = dir
	if cfg.templates == "" {
		cfg.templates = filepath.Join(dir, "templates")
	}
	cfg.logger = p.logger(min(p.logLevel(), zapcore.InfoLevel))
	ctx, stop := interruptible(ctx)
	defer stop()
	s, err := startServer(ctx, cfg)
	if err != nil {
		return err
	}
	if err := p.greet(s); err != nil {
		_ = s.Close()
		return err
	}
	select {
	case <-ctx.Done():
		p.ui.info("shutting down")
		return s.Close()
	case err := <-s.served:
		s.served <- err
		_ = s.Close()
		return err
	}
}

// greet says where the server is and, the first time, hands over the token.
func (p *program) greet(s *server) error {
	c, err := loadCredentials()
	if err != nil {
		return err
	}
	if have, ok := c.Servers[s.url]; !ok || !s.accepts(have.Token) {
		if err := saveToken(s.url, s.userToken); err != nil {
			return err
		}
		path, err := credentialsPath()
		if err != nil {
			return err
		}
		p.ui.info("your token, kept in %s, is:", path)
		if _, err := fmt.Fprintln(p.out, s.userToken); err != nil {
			return err
		}
	}
	p.ui.info("listening on %s", s.url)
	return nil
}

// accepts reports whether a token that was kept is still good here.
func (s *server) accepts(tok string) bool {
	_, err := s.authority.Verify(tok)
	return err == nil
}
