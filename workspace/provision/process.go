package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

// defaultGrace is how long processes may take to end, besides the time that the shutdown script has.
const defaultGrace = 10 * time.Second

// killTimeout bounds the wait for processes that were killed. The kernel ends them at once unless they hang in it.
const killTimeout = 10 * time.Second

// Config says how a Process works.
type Config struct {
	// StateDir is where it keeps its records, for itself alone. Two servers with one StateDir at the same time would
	// take each other's workspaces: see to it that there is one. It is made if it does not exist.
	StateDir string
	// Logger takes what goes wrong; nil discards it.
	Logger *zap.Logger
	// OnExit is called whenever a process has ended by itself, and OnRestart after it was started again. Either may be
	// nil. They must not call the provisioner.
	OnExit    func(Exit)
	OnRestart func(Restart)
	// Environ is the environment that workspaces inherit a few harmless variables from; nil means os.Environ.
	Environ func() []string
	// Grace is how long processes may take to end once they were asked to, besides the time that the shutdown script
	// has; 0 means 10 seconds.
	Grace time.Duration
}

// Process runs the agent of each workspace as a process group and session of this machine.
//
// What runs is recorded in StateDir and writes to a file in the workspace's directory, so that it lives on when the
// server dies. Processes are told apart by ID, start time and boot, never by their ID alone. Those that have left
// their group are found by marks in their environment (TUNNELER_OWNER and TUNNELER_WORKSPACE_ID); on systems other than
// Linux only as long as their parent lives.
type Process struct {
	cfg     Config
	log     *zap.Logger
	sys     system
	records records
	// owner marks this server's processes: the path of its StateDir.
	owner string

	// ctx ends with Close, and calls counts what Close waits for.
	ctx    context.Context //nolint:containedctx // the lifetime of the goroutines, which no single call has
	cancel context.CancelFunc
	calls  sync.WaitGroup
	locks  keyLock

	mu        sync.Mutex
	closed    bool
	instances map[string]*supervised
}

var _ Provisioner = (*Process)(nil)

// NewProcess makes a Process. Its owner calls Recover first and Close last.
func NewProcess(cfg Config) (*Process, error) {
	sys, err := newHost()
	if err != nil {
		return nil, err
	}
	return newProcess(cfg, sys)
}

func newProcess(cfg Config, sys system) (*Process, error) {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Environ == nil {
		cfg.Environ = os.Environ
	}
	if cfg.Grace == 0 {
		cfg.Grace = defaultGrace
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, err
	}
	owner, err := filepath.Abs(cfg.StateDir)
	if err == nil {
		owner, err = filepath.EvalSymlinks(owner)
	}
	if err != nil {
		return nil, err
	}
	p := &Process{
		cfg: cfg, log: cfg.Logger, sys: sys, records: records{owner}, owner: owner,
		instances: make(map[string]*supervised),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

// Start implements Provisioner.
func (p *Process) Start(ctx context.Context, spec Spec, out func(Line)) (*Instance, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	leave, err := p.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	unlock, err := p.locks.lock(ctx, spec.WorkspaceID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}

	if s := p.instance(spec.WorkspaceID); s != nil {
		if s.ref.Build != spec.Build {
			return nil, &BusyError{s.ref}
		}
		s.sink.redirect(out)
		return s.Instance, nil
	}
	adopted, err := p.adoptRecorded(spec, out)
	if err != nil || adopted != nil {
		return adopted, err
	}
	return p.startNew(ctx, spec, out)
}

// adoptRecorded adopts the spec's build if a record says that it runs. It clears away what a record says has run, and
// returns nil when nothing is left in the way of a start.
func (p *Process) adoptRecorded(spec Spec, out func(Line)) (*Instance, error) {
	rec, err := p.records.load(spec.WorkspaceID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // nothing there, nothing wrong
	}
	if err != nil {
		p.log.Warn("a record cannot be read and is dropped", zap.Error(err))
		return nil, p.clear(spec.WorkspaceID)
	}
	proc, ok := p.sys.find(p.owner, rec.WorkspaceID, rec.Process)
	if !ok {
		return nil, p.clear(spec.WorkspaceID)
	}
	if rec.Build != spec.Build {
		return nil, &BusyError{rec.ref()}
	}
	return p.adopt(rec, spec, proc, out)
}

// adopt takes over a process that an earlier server has started.
func (p *Process) adopt(rec record, spec Spec, proc process, out func(Line)) (*Instance, error) {
	s := p.newSupervised(spec, out)
	s.rec = rec
	f, err := openFollower(rec.Dir, false, s.sink)
	if err != nil {
		return nil, err
	}
	s.tail = startTail(f, s.log)
	s.pid = rec.Process.PID
	s.sink.say(events.LogInfo, "adopted process %d, which an earlier server started", rec.Process.PID)
	p.supervise(s, proc)
	return s.Instance, nil
}

// startNew starts a process where none runs.
func (p *Process) startNew(ctx context.Context, spec Spec, out func(Line)) (*Instance, error) {
	s := p.newSupervised(spec, out)
	s.rec = record{
		WorkspaceID: spec.WorkspaceID, WorkspaceName: spec.WorkspaceName, Build: spec.Build, Dir: spec.Dir,
		Grace: p.cfg.Grace,
	}
	if script := spec.Template.ShutdownScript; script != nil {
		s.rec.Grace += script.Timeout.Std()
	}
	proc, err := s.launch(true)
	if err == nil && ctx.Err() != nil {
		_ = s.collect(proc) // how it ended is of no interest
		err = errors.Join(ctx.Err(), p.records.remove(spec.WorkspaceID))
	}
	if err != nil {
		return nil, fmt.Errorf("start workspace %s: %w", spec.WorkspaceName, err)
	}
	s.sink.say(events.LogInfo, "started process %d", proc.identity().PID)
	p.supervise(s, proc)
	return s.Instance, nil
}

// Stop implements Provisioner.
func (p *Process) Stop(ctx context.Context, workspaceID string, out func(Line)) error {
	if !workspaceIDRE.MatchString(workspaceID) {
		return &SpecError{"workspace ID", fmt.Sprintf("is %q, expected 1 to 64 of A-Z, a-z, 0-9, - and _", workspaceID)}
	}
	leave, err := p.enter()
	if err != nil {
		return err
	}
	defer leave()
	unlock, err := p.locks.lock(context.WithoutCancel(ctx), workspaceID)
	if err != nil {
		return err
	}
	defer unlock()

	if s := p.instance(workspaceID); s != nil {
		select {
		case s.stopping <- stopRequest{ctx, out}:
			<-s.gone
			return s.result
		case <-s.gone:
			if p.ctx.Err() != nil {
				return ErrClosed
			}
			// It ended by itself in this moment, and nothing of it is left.
		}
	}
	return p.stopRecorded(ctx, workspaceID, out)
}

// stopRecorded stops a workspace that this server does not supervise.
func (p *Process) stopRecorded(ctx context.Context, workspaceID string, out func(Line)) error {
	rec, err := p.records.load(workspaceID)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			p.log.Warn("a record cannot be read and is dropped", zap.Error(err))
		}
		return p.clear(workspaceID)
	}
	proc, ok := p.sys.find(p.owner, workspaceID, rec.Process)
	if !ok {
		return p.clear(workspaceID)
	}
	s := p.newSupervised(Spec{
		WorkspaceID: workspaceID, WorkspaceName: rec.WorkspaceName, Build: rec.Build, Dir: rec.Dir,
	}, out)
	s.rec = rec
	if f, err := openFollower(rec.Dir, false, s.sink); err != nil {
		p.log.Warn("the output of a workspace cannot be read", zap.Error(err))
	} else {
		s.tail = startTail(f, s.log)
	}
	return s.shutdown(stopRequest{ctx, out}, proc)
}

// clear ends whatever is left of a workspace and forgets it.
func (p *Process) clear(workspaceID string) error {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	if err := p.sys.sweep(ctx, p.owner, workspaceID); err != nil {
		return err
	}
	return p.records.remove(workspaceID)
}

// Close implements Provisioner. It waits for a Stop that is under way.
func (p *Process) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.calls.Wait()
	return nil
}

// enter counts a call or goroutine in, and returns what counts it out.
func (p *Process) enter() (leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	p.calls.Add(1)
	return p.calls.Done, nil
}

// supervise makes an instance known and watches over its process from now on. Its caller has entered.
func (p *Process) supervise(s *supervised, proc process) {
	p.mu.Lock()
	p.instances[s.ref.WorkspaceID] = s
	p.mu.Unlock()
	p.calls.Go(func() {
		s.result = s.supervise(proc)
		p.mu.Lock()
		delete(p.instances, s.ref.WorkspaceID)
		p.mu.Unlock()
		// Whoever hears of the end may start the workspace anew.
		if !errors.Is(s.result, ErrClosed) {
			s.settle(s.result)
		}
		close(s.gone)
	})
}

func (p *Process) instance(workspaceID string) *supervised {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.instances[workspaceID]
}
