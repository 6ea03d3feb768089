package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/tunneler/tunneler/workspace/provision"
	"github.com/tunneler/tunneler/workspace/store"
	"github.com/tunneler/tunneler/workspace/template"
	"github.com/tunneler/tunneler/workspace/token"
)

// Config says what a coordinator works with. What is not said to have a useful
// zero value is needed.
type Config struct {
	// Store holds all state. The coordinator does not close it.
	Store *store.Store
	// Authority verifies tokens, and issues those of agents.
	Authority *token.Authority
	// Provisioners run workspaces, by what their templates call them. Close
	// closes them: they outlive no coordinator.
	Provisioners map[template.Provisioner]provision.Provisioner
	// WorkspaceDir is the directory in which each workspace has its own.
	WorkspaceDir string
	// Agent says how agents are run. AgentTokenFileEnv is added to its
	// environment.
	Agent provision.AgentSpec
	// PublicURL is where agents and users reach this coordinator, asked anew
	// each time: agents find it as $TUNNEL_SERVER. It is not needed if Agent's
	// environment tells them in another way.
	PublicURL func() string
	// TemplateDir holds templates besides the built-in ones; empty means none.
	TemplateDir string

	// Node names this coordinator among those that share the store; what runs
	// on its machine is its own. It must stay the same over a restart. Empty
	// means "local".
	Node string
	// Organization is what agents are told that they belong to; empty means
	// "default".
	Organization string
	// Version is the program's version, which /metrics shows.
	Version string
	// AgentTokenLife is how long an agent's token is good; agents renew theirs
	// at half of it, and none is good after its build. 0 means 30 days: a
	// workspace that goes on while no coordinator runs must be let in again.
	AgentTokenLife time.Duration
	// AgentReturn is how long agents have to come back to a coordinator that
	// was restarted before they are shown as disconnected; 0 means 30 s.
	AgentReturn time.Duration
	// Retention is how long a deleted workspace's records and logs are kept; 0
	// means a week.
	Retention time.Duration
	// MaxWatches and MaxAgents bound the WebSockets of either kind; 0 means
	// 20,000 of each.
	MaxWatches int
	MaxAgents  int

	// Logger takes what an operator should know; nil means silence.
	Logger *zap.Logger
	// Registry takes the coordinator's figures, and /metrics shows all that it
	// has; nil means one of its own.
	Registry *prometheus.Registry
}

// AgentTokenFileEnv is the environment variable that tells an agent where its
// token is: a file that only its user can read, which the agent replaces when
// it renews the token.
const AgentTokenFileEnv = "TUNNEL_AGENT_TOKEN_FILE"

func (c *Config) setDefaults() error {
	switch {
	case c.Store == nil:
		return errors.New("a coordinator needs a store")
	case c.Authority == nil:
		return errors.New("a coordinator needs an authority that verifies tokens")
	case !filepath.IsAbs(c.WorkspaceDir):
		return fmt.Errorf("the directory of workspaces is %q, expected an absolute path", c.WorkspaceDir)
	}
	if c.Node == "" {
		c.Node = "local"
	}
	if c.Organization == "" {
		c.Organization = "default"
	}
	setDefault(&c.AgentTokenLife, 30*24*time.Hour)
	setDefault(&c.AgentReturn, 30*time.Second)
	setDefault(&c.Retention, 7*24*time.Hour)
	setDefault(&c.MaxWatches, 20_000)
	setDefault(&c.MaxAgents, 20_000)
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	return nil
}

func setDefault[T comparable](p *T, v T) {
	if *p == *new(T) {
		*p = v
	}
}

// Coordinator is the control plane of one process. It is safe for concurrent
// use.
type Coordinator struct {
	cfg        Config
	log        *zap.Logger
	metrics    *metrics
	tokens     *token.Authority
	templates  catalogue
	workspaces *registry
	bells      *logBell
	logs       *storeLogs
	sessions   *sessions
	handler    http.Handler

	watches  slots
	channels slots
	times    times

	// closing ends when Close begins: nothing new is begun, and what waits for
	// others gives up. life ends when its patience does: what cannot be
	// finished by then is left to the next coordinator.
	closing, life           context.Context //nolint:containedctx // the lifetimes of the goroutines
	beginClose, endLife     context.CancelFunc
	streams                 tracker        // watches, channels and followed logs
	runs                    tracker        // Run
	work                    sync.WaitGroup // what serves the others: writers and readers of logs
	jobs                    *jobs
	recovered, storeHealthy atomic.Bool
	closeOnce               sync.Once
}

// times are those that tests do not wait for.
type times struct{ ping, connect time.Duration }

// New makes a coordinator and opens its part of the store. It serves requests
// from then on, but does not work on builds before Run.
func New(cfg Config) (*Coordinator, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	c := &Coordinator{cfg: cfg, log: cfg.Logger, tokens: cfg.Authority, templates: catalogue{cfg.TemplateDir, cfg.Logger}}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	var err error
	if c.workspaces, err = openRegistry(ctx, cfg.Store, cfg.Node); err != nil {
		return nil, err
	}
	if c.metrics, err = newMetrics(cfg.Registry, cfg.Version); err != nil {
		c.workspaces.cache.Close()
		return nil, err
	}
	c.closing, c.beginClose = context.WithCancel(context.Background())
	c.life, c.endLife = context.WithCancel(context.Background())
	c.bells = &logBell{life: c.life, wg: &c.work, store: cfg.Store, bells: make(map[string]*bell)}
	c.logs = &storeLogs{
		store: cfg.Store, life: c.life, wg: &c.work, busy: make(map[string]bool), next: make(map[string]*tailQuestion),
	}
	c.watches, c.channels = slots{limit: int64(cfg.MaxWatches)}, slots{limit: int64(cfg.MaxAgents)}
	c.times = times{ping: pingInterval, connect: connectTimeout}
	c.sessions = newSessions()
	c.jobs = newJobs()
	c.storeHealthy.Store(true)
	c.handler = c.newHandler()
	return c, nil
}

// openTimeout bounds the opening of the store's buckets.
const openTimeout = 30 * time.Second

// ready reports whether the coordinator can do its work.
func (c *Coordinator) ready() bool {
	return c.closing.Err() == nil && c.recovered.Load() && c.storeHealthy.Load()
}

// provisioner finds who runs workspaces of that kind; nil if nobody does.
func (c *Coordinator) provisioner(kind template.Provisioner) provision.Provisioner {
	return c.cfg.Provisioners[kind]
}

// Close ends the coordinator in order: watches and agents are told to come back
// later, a build that stops a workspace is finished, any other is left to the
// next coordinator, what runs goes on. When ctx ends it waits no longer for
// workspaces to stop or for the store, but still for its goroutines.
func (c *Coordinator) Close(ctx context.Context) error {
	var err error
	c.closeOnce.Do(func() { err = c.close(ctx) })
	return err
}

func (c *Coordinator) close(ctx context.Context) error {
	c.beginClose()
	impatient := context.AfterFunc(ctx, c.endLife)
	defer impatient()
	c.streams.wait()
	c.runs.wait()
	c.jobs.wait()
	var errs []error
	for _, p := range c.cfg.Provisioners {
		errs = append(errs, p.Close())
	}
	c.jobs.flush()
	c.endLife()
	c.work.Wait()
	c.workspaces.cache.Close()
	return errors.Join(errs...)
}

// slots bounds how many of something there are at a time.
type slots struct {
	limit int64
	taken atomic.Int64
}

// take takes a place; the caller gives it back with release if ok is true.
func (s *slots) take() (ok bool) {
	if s.taken.Add(1) > s.limit {
		s.taken.Add(-1)
		return false
	}
	return true
}

func (s *slots) release() { s.taken.Add(-1) }
