package coordinator

import (
	"context"
	"sync"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/provision"
	"github.com/tunneler/tunneler/workspace/store"
)

// jobs are what this coordinator is doing to workspaces: at most one thing to
// each at a time.
type jobs struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
	// running are the jobs by workspace.
	running map[string]*job
	// outputs are where the workspaces' provisioners write to.
	outputs map[string]*output
	// again receives when a job has ended, and another may have been kept
	// waiting.
	again chan struct{}
}

// job is one thing that is done to a workspace: a build, or the revival of one
// that has ended though nobody stopped it.
type job struct {
	number  int64
	revival bool
	cancel  context.CancelFunc
}

func newJobs() *jobs {
	return &jobs{running: make(map[string]*job), outputs: make(map[string]*output), again: make(chan struct{}, 1)}
}

// begin runs f as the job of a workspace. It does nothing if the workspace has
// one, but ends a revival that is in a build's way.
func (j *jobs) begin(parent context.Context, id string, one job, f func(context.Context)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	if other := j.running[id]; other != nil {
		if other.revival && !one.revival {
			other.cancel()
		}
		return
	}
	ctx, cancel := context.WithCancel(parent)
	one.cancel = cancel
	j.running[id] = &one
	j.wg.Go(func() {
		defer cancel()
		f(ctx)
		j.mu.Lock()
		delete(j.running, id)
		j.mu.Unlock()
		select {
		case j.again <- struct{}{}:
		default:
		}
	})
}

// wait lets no job begin any more and waits for those that run.
func (j *jobs) wait() {
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	j.wg.Wait()
}

// flush waits until the lines of all workspaces are stored or given up.
func (j *jobs) flush() {
	j.mu.Lock()
	outputs := make([]*output, 0, len(j.outputs))
	for _, o := range j.outputs {
		outputs = append(outputs, o)
	}
	j.mu.Unlock()
	for _, o := range outputs {
		o.flush()
	}
}

// output takes a workspace's lines to the log of its newest build: once a build
// has begun, nothing goes to the one before.
type output struct {
	mu     sync.Mutex
	number int64
	writer *logWriter
	last   string // the last line of a process
}

// output gives the output of a workspace, to the log of build number from now on.
func (c *Coordinator) output(id string, number int64) (*output, error) {
	c.jobs.mu.Lock()
	o := c.jobs.outputs[id]
	if o == nil {
		o = new(output)
		c.jobs.outputs[id] = o
	}
	c.jobs.mu.Unlock()

	o.mu.Lock()
	defer o.mu.Unlock()
	if o.number == number {
		return o, nil
	}
	w, err := c.newLogWriter(id, number)
	if err != nil {
		return nil, err
	}
	if o.writer != nil {
		o.writer.flush()
	}
	o.number, o.writer, o.last = number, w, ""
	return o, nil
}

// forget drops the output of a workspace that is deleted.
func (j *jobs) forget(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.outputs, id)
}

// line takes one line of the provisioner or a process.
func (o *output) line(l provision.Line) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l.Source == provision.SourceProcess && l.Text != "" {
		o.last = l.Text
	}
	o.writer.write(store.LogRecord{
		CreatedAt: l.Time, Level: l.Level.String(), Source: string(l.Source), Stage: stageBuild, Output: l.Text,
	})
}

// say writes a line of the coordinator's own.
func (o *output) say(level events.LogLevel, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writer.write(store.LogRecord{CreatedAt: now(), Level: level.String(), Source: sourceCoordinator, Stage: stageBuild, Output: text})
}

// flush returns when all lines so far are stored or given up.
func (o *output) flush() {
	o.mu.Lock()
	w := o.writer
	o.mu.Unlock()
	if w != nil {
		w.flush()
	}
}

// lastLine is the last line that a process of the build wrote; empty for none.
func (o *output) lastLine() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// Where the lines of build logs come from.
const (
	stageBuild        = "build"
	sourceCoordinator = "coordinator"
)

// insist changes a record, for as long as it takes if the store is out of
// reach. The error is that of f, of a record that is not there, or the context's.
func (c *Coordinator) insist(ctx context.Context, id string, f func(*record) error) (record, error) {
	for {
		rec, err := c.workspaces.change(ctx, id, f)
		if !unavailable(err) {
			return rec, err
		}
		if ctx.Err() != nil {
			return record{}, ctx.Err()
		}
		c.log.Debug("a change cannot be stored, trying again", zap.String("workspace_id", id), zap.Error(err))
		if err := sleep(ctx, storeRetry); err != nil {
			return record{}, err
		}
	}
}
