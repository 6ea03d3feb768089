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
	flushGrace = 2 * time.Second
	// statsInterval is the time between two reports of the agent's gauges.
	statsInterval = 30 * time.Second
	// The time between two attempts to learn what to do, which doubles.
	minRetry = 100 * time.Millisecond
	maxRetry = 5 * time.Second
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
	// starting is what the start runs and waits for, work the services,
	// background all that outlives those.
	starting, work, background sync.WaitGroup
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
	defer creds.close()
	a := &agent{cfg: cfg, id: uuid.NewString(), creds: creds, journal: newJournal(), family: newFamily()}
	manifest, err := a.learn(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	a.family.env = a.baseEnv(manifest)
	a.targets = &targets{manifest: manifest, dir: cfg.Dir, outsideSockets: cfg.OutsideSockets}
	if a.channel, err = a.newChannel(); err != nil {
		return err
	}
	listener, err := tailnet.Listen(tailnet.ListenConfig{Addrs: cfg.listenAddrs(), Logger: cfg.Logger.Named("tailnet")})
	if err != nil {
		return fmt.Errorf("cannot listen for tunnels: %w", err)
	}
	a.tunnels = newTunnels(listener, a.targets, cfg.Logger)
	return a.live(ctx)
}

// learn asks the coordinator what to do, for as long as it takes: the
// coordinator may be starting itself.
func (a *agent) learn(ctx context.Context) (api.Manifest, error) {
	said := ""
	for delay := minRetry; ; delay = min(2*delay, maxRetry) {
		m, err := a.creds.manifest(ctx)
		if err == nil || errors.Is(err, ErrUnauthorized) || ctx.Err() != nil {
			return m, err
		}
		if err.Error() != said {
			said = err.Error()
			a.cfg.Logger.Warn("cannot reach the coordinator, and will go on trying", zap.Error(err))
		}
		if !sleep(ctx, delay) {
			return m, ctx.Err()
		}
		if a.creds.load() != nil { // somebody may have put a new one there
			continue // the one in hand is as good as before
		}
	}
}

// live runs everything, and takes it down in the order in which its parts need
// each other: the shutdown script, services and tunnels, the channel.
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

	a.journal.lifecycle(events.LifecycleCreated, nil)
	running, stopServices := context.WithCancel(base)
	defer stopServices()
	a.starting.Go(func() { a.startUp(ctx, running) })
	<-ctx.Done()

	// The channel ends us when there is nobody left to talk to.
	cause, alone := context.Cause(ctx), told.Err() == nil
	a.shutDown(stopServices)
	if !alone {
		grace, cancel := context.WithTimeout(base, flushGrace)
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

// shutDown takes the workspace down and reports how. The shutdown script still
// has its services, and nothing of the start is under way any more.
func (a *agent) shutDown(stopServices context.CancelFunc) {
	a.journal.lifecycle(events.LifecycleShuttingDown, nil)
	a.starting.Wait()
	l, failure := a.runShutdownScript()
	if failure != nil {
		a.say(stageStop, failure)
		a.journal.lifecycle(l, failure)
	}
	stopServices()
	var tunnels sync.WaitGroup
	tunnels.Go(func() {
		grace, cancel := context.WithTimeout(context.Background(), drainGrace)
		defer cancel()
		_ = a.tunnels.listener.Close(grace) // those that did not end in time are cut
	})
	a.work.Wait()
	if err := a.family.end(context.Background()); err != nil {
		a.say(stageStop, err)
		failure = errors.Join(failure, err)
	}
	tunnels.Wait()
	// The last state says once more what went wrong: it is the one that stays.
	a.journal.lifecycle(events.LifecycleOff, failure)
}

// private are the variables that concern the agent alone, or lead to its token.
func private(key string) bool {
	return strings.HasPrefix(key, "TUNNEL_AGENT_") || key == "TUNNEL_SERVER_FILE" || key == "TUNNEL_TOKEN"
}

// baseEnv is the environment of scripts and services: ours, without what is
// the agent's alone, and what the template says.
func (a *agent) baseEnv(m api.Manifest) []string {
	env := make(map[string]string)
	token := a.creds.current()
	for _, pair := range a.cfg.Environ {
		k, v, _ := strings.Cut(pair, "=")
		if !private(k) && !strings.Contains(v, token) {
			env[k] = v
		}
	}
	maps.Copy(env, m.Template.Env)
	env["TUNNELER_WORKSPACE_ID"] = m.WorkspaceID
	env["TUNNELER_WORKSPACE_NAME"] = m.WorkspaceName
	env["TUNNELER_WORKSPACE_BUILD"] = strconv.FormatInt(m.Build, 10)
	env["TUNNELER_WORKSPACE_DIR"] = a.cfg.Dir
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
