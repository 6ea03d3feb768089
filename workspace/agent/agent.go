package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/channel"
	"github.com/tunneler/tunneler/transport/tailnet"
	"github.com/tunneler/tunneler/workspace/api"
)

const (
	// drainGrace is how long tunnels may go on once everything else has ended.
	drainGrace = time.Second
	// flushGrace is how long the last words may take to be stored.
	flushGrace = 3 * time.Second
	// statsInterval is the time between two reports of the agent's gauges.
	statsInterval = 30 * time.Second
	// manifestRetry is the time between two attempts to learn what to do.
	manifestRetry = 500 * time.Millisecond
)

// agent is one run.
type agent struct {
	cfg     Config
	id      string
	creds   *credentials
	journal *journal
	family  *family
	targets *targets
	tunnels *tunnels
	channel *channel.Client
	// work is scripts and services; background is all that outlives them.
	work, background sync.WaitGroup
}

// Run is the agent's life: it returns nil when ctx has ended and everything is
// taken down in order, and otherwise the error that ended it, ErrUnauthorized
// and ErrReplaced among them; everything is taken down then, too.
func Run(ctx context.Context, cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	creds, err := newCredentials(&cfg)
	if err != nil {
		return err
	}
	a := &agent{
		cfg: cfg, id: uuid.NewString(), creds: creds, journal: newJournal(),
		family: &family{dir: cfg.Dir, ours: make(map[int]bool)},
	}
	manifest, err := a.learn(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	a.family.env = baseEnv(manifest)
	a.targets = &targets{manifest: manifest, dir: cfg.Dir}
	if a.channel, err = a.newChannel(); err != nil {
		return err
	}
	listener, err := tailnet.Listen(tailnet.ListenConfig{Addrs: cfg.listenAddrs(), Logger: cfg.Logger.Named("tailnet")})
	if err != nil {
		return fmt.Errorf("cannot listen for tunnels: %w", err)
	}
	a.tunnels = &tunnels{listener: listener, targets: a.targets, log: cfg.Logger}
	return a.live(ctx)
}

// learn asks the coordinator what to do, for as long as it takes: the
// coordinator may be starting itself.
func (a *agent) learn(ctx context.Context) (api.Manifest, error) {
	for {
		m, err := a.creds.manifest(ctx)
		if err == nil || errors.Is(err, ErrUnauthorized) || ctx.Err() != nil {
			return m, err
		}
		a.cfg.Logger.Warn("cannot reach the coordinator", zap.Error(err))
		if !sleep(ctx, manifestRetry) {
			return m, ctx.Err()
		}
	}
}

// live runs everything, and takes it down in the order in which its parts need
// each other: scripts and services, tunnels, the channel.
func (a *agent) live(told context.Context) error {
	ctx, end := context.WithCancelCause(told)
	defer end(nil)
	// The channel, the tunnels and the orphans' reaper outlive the work.
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	a.background.Go(func() { a.family.adopt(base) })
	a.background.Go(func() { a.tunnels.serve(base) })
	a.background.Go(func() { a.creds.keepFresh(base) })
	talked := make(chan struct{})
	go func() {
		defer close(talked)
		a.talk(base, end)
	}()

	a.work.Go(func() { a.startUp(ctx) })
	<-ctx.Done()

	// The channel ends us when there is nobody left to talk to.
	cause, alone := context.Cause(ctx), told.Err() == nil
	final, err := a.shutDown(base)
	a.work.Wait()
	a.family.end(base)
	if err != nil {
		a.journal.log(events.LogError, sourceAgent, "stop", err.Error())
		a.journal.lifecycle(final, err)
	}
	a.journal.lifecycle(events.LifecycleOff, nil)
	grace, cancel := context.WithTimeout(base, drainGrace)
	_ = a.tunnels.listener.Close(grace) // those that did not end in time are cut
	cancel()
	if !alone {
		grace, cancel = context.WithTimeout(base, flushGrace)
		a.journal.flush(grace)
		_ = a.channel.Shutdown(grace) // what is not stored in time is lost
		cancel()
	}
	stop()
	<-talked
	a.background.Wait()
	if alone {
		return cause
	}
	return nil
}

// baseEnv is the environment of scripts and services: ours, without what is
// the agent's alone, and what the template says.
func baseEnv(m api.Manifest) []string {
	env := make(map[string]string)
	for _, pair := range os.Environ() {
		k, v, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(k, "TUNNEL_AGENT_") && k != "TUNNEL_SERVER_FILE" && k != "TUNNEL_TOKEN" {
			env[k] = v
		}
	}
	maps.Copy(env, m.Template.Env)
	env["TUNNELER_WORKSPACE_ID"] = m.WorkspaceID
	env["TUNNELER_WORKSPACE_NAME"] = m.WorkspaceName
	env["TUNNELER_WORKSPACE_BUILD"] = strconv.FormatInt(m.Build, 10)
	if env["TUNNEL_BIN"] == "" {
		env["TUNNEL_BIN"], _ = os.Executable()
	}
	return pairs(env)
}

// env is the base with more on top.
func (a *agent) env(more map[string]string) []string {
	return append(slices.Clone(a.family.env), pairs(more)...)
}

func pairs(env map[string]string) []string {
	out := make([]string, 0, len(env))
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}

// dir is the template's directory, or one below it.
func (a *agent) dir(sub string) string {
	dir := a.targets.manifest.Template.Directory
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(a.cfg.Dir, dir)
	}
	if filepath.IsAbs(sub) {
		return sub
	}
	return filepath.Join(dir, sub)
}
