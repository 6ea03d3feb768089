package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/client"
	"github.com/tunneler/tunneler/workspace/coordinator"
	"github.com/tunneler/tunneler/workspace/provision"
	"github.com/tunneler/tunneler/workspace/store"
	"github.com/tunneler/tunneler/workspace/template"
	"github.com/tunneler/tunneler/workspace/token"
)

// serverConfig says how to run the server side in this process.
type serverConfig struct {
	dir       string // data directory
	listen    string // HOST:PORT; empty for an embedded server: loopback, the port of last time if it is free
	templates string // directory of templates besides the built-in ones
	tlsCert   string // certificate and key file for TLS
	tlsKey    string
	embedded  bool // it ends with a command, and stops what runs
	keep      bool // but leaves what is started in this session
	logger    *zap.Logger
}

// server is the server side in this process: store, provisioner, coordinator
// and its HTTP front.
type server struct {
	cfg         serverConfig
	log         *zap.Logger
	url         string
	store       *store.Store
	process     *provision.Process
	coordinator *coordinator.Coordinator
	http        *http.Server
	authority   *token.Authority
	userToken   string
	served      chan error
	running     chan struct{} // closed when the coordinator's Run has returned
	cancelRun   context.CancelFunc
	mu          sync.Mutex
	hurried     []string // workspaces whose stop was not waited for
	kept        *keptWorkspaces

	closeOnce sync.Once
	closeErr  error
	closed    chan struct{}
	patience  context.Context // ended by hurry
	hurry     context.CancelFunc
}

const (
	// userTokenLife is how long a user's token is good. An embedded server
	// makes a new one each time.
	userTokenLife = 365 * 24 * time.Hour
	// stopTimeout bounds the stop of one workspace at the end of an embedded
	// server; its processes are killed after it.
	stopTimeout = 90 * time.Second
)

// startServer brings the server side up, or nothing of it.
func startServer(ctx context.Context, cfg serverConfig) (_ *server, err error) {
	s := &server{cfg: cfg, log: cfg.logger, served: make(chan error, 1), running: make(chan struct{}), closed: make(chan struct{})}
	s.patience, s.hurry = context.WithCancel(context.Background())
	var undo []func()
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()
	s.store, err = store.Open(ctx, store.Options{Dir: filepath.Join(cfg.dir, "store"), Logger: s.log.Named("store")})
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() { _ = s.store.Close() })

	key, err := loadKey(filepath.Join(cfg.dir, "signing-key.pem"))
	if err != nil {
		return nil, err
	}
	s.authority = &token.Authority{Key: key}
	if s.kept, err = loadKept(cfg.dir); err != nil {
		return nil, err
	}
	s.process, err = provision.NewProcess(s.processConfig())
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() { _ = s.process.Close() })
	listener, err := s.listen(ctx)
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() { listener.Close() })
	agent, err := s.agentSpec()
	if err != nil {
		return nil, err
	}
	s.coordinator, err = coordinator.New(coordinator.Config{
		Store: s.store, Authority: s.authority,
		Provisioners: map[template.Provisioner]provision.Provisioner{template.ProvisionerProcess: s.process, template.ProvisionerNone: provision.None{}},
		TemplateDir:  cfg.templates, WorkspaceDir: filepath.Join(cfg.dir, "workspaces"),
		Agent: agent, Logger: s.log.Named("coordinator"),
	})
	if err != nil {
		return nil, err
	}
	if err := s.publish(); err != nil {
		return nil, err
	}
	runCtx, cancel := context.WithCancel(context.Background())
	s.cancelRun = cancel
	go func() {
		defer close(s.running)
		if err := s.coordinator.Run(runCtx); err != nil && runCtx.Err() == nil {
			s.log.Error("the coordinator ended", zap.Error(err))
		}
	}()
	s.http = coordinator.NewHTTPServer(s.coordinator.Handler())
	s.http.ErrorLog, _ = zap.NewStdLogAt(s.log.Named("http"), zap.DebugLevel)
	go func() { s.served <- s.http.Serve(listener) }()
	return s, nil
}

func (s *server) processConfig() provision.Config {
	return provision.Config{StateDir: filepath.Join(s.cfg.dir, "processes"), Logger: s.log.Named("provision")}
}

// listen opens the server's port. An embedded server takes the port that it
// had last time, so that agents which run on find it again; if that is taken,
// they find the new one in the discovery file.
func (s *server) listen(ctx context.Context) (net.Listener, error) {
	addrs := []string{s.cfg.listen}
	if s.cfg.embedded {
		addrs = []string{"127.0.0.1:0"}
		last := &discovered{path: agentsPath(s.cfg.dir)}
		if host, ok := strings.CutPrefix(last.read().URL, "http://"); ok {
			addrs = []string{host, "127.0.0.1:0"}
		}
	}
	var l net.Listener
	var err error
	for _, addr := range addrs {
		var lc net.ListenConfig
		if l, err = lc.Listen(ctx, "tcp", addr); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	s.url = "http://" + l.Addr().String()
	if s.cfg.tlsCert == "" {
		return l, nil
	}
	cert, err := tls.LoadX509KeyPair(s.cfg.tlsCert, s.cfg.tlsKey)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot use the TLS certificate: %w", err)
	}
	s.url = "https://" + l.Addr().String()
	return tls.NewListener(l, &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
	}), nil
}

// agentSpec says how agents are run: by this very program.
func (s *server) agentSpec() (provision.AgentSpec, error) {
	bin, err := stableExecutable(s.cfg.dir)
	if err != nil {
		return provision.AgentSpec{}, err
	}
	return provision.AgentSpec{
		Argv: []string{bin, "agent"},
		Env:  []string{"TUNNEL_SERVER_FILE=" + agentsPath(s.cfg.dir)},
	}, nil
}

// publish leaves word of the server: for other commands on the data directory
// with a user's token, for the agents of this machine without one.
func (s *server) publish() error {
	t, err := s.authority.Issue(token.Claims{Subject: userName(), Scope: api.ScopeOwner}, userTokenLife)
	if err != nil {
		return err
	}
	s.userToken = t.Token
	if err := writePrivate(agentsPath(s.cfg.dir), discovery{URL: s.url, PID: os.Getpid()}); err != nil {
		return err
	}
	return writePrivate(discoveryPath(s.cfg.dir), discovery{
		URL: s.url, PID: os.Getpid(), Token: s.userToken, Standalone: !s.cfg.embedded,
	})
}

func userName() string {
	for _, name := range []string{"USER", "LOGNAME", "USERNAME"} {
		if u := os.Getenv(name); u != "" {
			return u
		}
	}
	return "user"
}

func (s *server) client() *client.Client {
	return client.New(client.FixedURL(s.url), client.StaticToken(s.userToken), client.Options{UserAgent: "tunnel/" + version})
}

// Close ends the server: an embedded one stops the workspaces that run, but
// for those that are kept; then the front, the coordinator and the store end.
func (s *server) Close() error {
	s.closeOnce.Do(func() {
		s.closeErr = s.shutdown()
		close(s.closed)
	})
	return s.closeErr
}

func (s *server) shutdown() error {
	var errs []error
	if s.cfg.embedded {
		errs = append(errs, s.stopWorkspaces())
	}
	grace, cancel := context.WithTimeout(s.patience, 10*time.Second)
	defer cancel()
	errs = append(errs, s.coordinator.Close(grace))
	if err := s.http.Shutdown(grace); err != nil {
		_ = s.http.Close()
	}
	if err := <-s.served; !errors.Is(err, http.ErrServerClosed) {
		errs = append(errs, err)
	}
	s.cancelRun()
	<-s.running
	errs = append(errs, s.killHurried())
	// The word with the token goes with the server: whoever has its port next
	// is not to be trusted with it.
	errs = append(errs, os.Remove(discoveryPath(s.cfg.dir)), s.store.Close())
	s.hurry()
	return errors.Join(errs...)
}

// stopWorkspaces stops what runs and is not kept.
func (s *server) stopWorkspaces() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	c := s.client()
	defer c.Close()
	list, err := c.Workspaces(ctx)
	if err != nil {
		return fmt.Errorf("cannot stop the workspaces: %w", err)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(list))
	for i, w := range list {
		if s.kept.has(w.ID) || !mayRun(w.Build) {
			continue
		}
		if s.cfg.keep {
			errs[i] = s.kept.set(w.ID, true)
			continue
		}
		wg.Go(func() { errs[i] = s.stopWorkspace(ctx, c, w) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// killHurried ends what was left when the user lost patience: the coordinator
// and its provisioner have let go of it by now.
func (s *server) killHurried() error {
	if len(s.hurried) == 0 {
		return nil
	}
	p, err := provision.NewProcess(s.processConfig())
	if err != nil {
		return err
	}
	errs := []error{}
	for _, id := range s.hurried {
		errs = append(errs, p.Stop(s.patience, id, nil))
	}
	return errors.Join(append(errs, p.Close())...)
}

// mayRun: the newest build may have left something running.
func mayRun(b api.Build) bool {
	return b.Transition == events.TransitionStart && b.Status != events.JobPending || !b.Status.Final()
}

// stopWorkspace stops one workspace, after the build that is under way.
func (s *server) stopWorkspace(ctx context.Context, c *client.Client, w api.Workspace) error {
	if !w.Build.Status.Final() {
		// It cannot be waited for: it may take as long as its start time-out.
		return s.process.Stop(s.patience, w.ID, nil)
	}
	b, err := c.CreateBuild(ctx, w.ID, api.CreateBuild{Transition: events.TransitionStop})
	if err != nil {
		// A coordinator that cannot store the build must not leave it running.
		return errors.Join(fmt.Errorf("cannot stop workspace %s in order: %w", w.Name, err), s.process.Stop(s.patience, w.ID, nil))
	}
	done := make(chan error, 1)
	go func() {
		done <- c.FollowBuildLogs(ctx, w.ID, b.Number, 0, func(events.Log) error { return nil })
	}()
	select {
	case err = <-done:
	case <-s.patience.Done():
		s.mu.Lock()
		s.hurried = append(s.hurried, w.ID)
		s.mu.Unlock()
		return nil // see killHurried
	}
	if err != nil {
		return fmt.Errorf("cannot stop workspace %s: %w", w.Name, err)
	}
	return nil
}

// loadKey reads the signing key, or makes one.
func loadKey(path string) (token.Key, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		return token.ParseKey(b)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return token.Key{}, err
	}
	key, err := token.GenerateKey()
	if err != nil {
		return key, err
	}
	if b, err = key.MarshalPEM(); err != nil {
		return key, err
	}
	return key, writeSecret(path, b)
}
