package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tunneler/tunneler/events"
)

const (
	// maxJournal bounds the log lines that wait for the channel, in bytes.
	// Beyond it the oldest are dropped, and a line says how many.
	maxJournal = 4 << 20
	// maxBatch bounds one message of log lines, in bytes.
	maxBatch = 64 << 10
)

// journal is what the agent has to tell the coordinator and must not be lost
// or told out of order: log lines, and the states of its life, each after the
// lines that were written before it. The channel takes what it is given for
// good; here it waits for its turn.
type journal struct {
	mu      sync.Mutex
	entries []events.AgentLogEntry // not yet given to the channel
	bytes   int
	seq     uint64 // of the last entry
	dropped int    // entries lost right before the first of those
	life    []state
	busy    bool          // a message is being handed over
	wake    chan struct{} // capacity 1
	told    chan struct{} // closed and made anew whenever all is handed over
}

// state is a state of life, to be told once the entries up to after are.
type state struct {
	msg   *events.AgentLifecycle
	after uint64
}

func newJournal() *journal {
	return &journal{wake: make(chan struct{}, 1), told: make(chan struct{})}
}

// log writes one line.
func (j *journal) log(level events.LogLevel, source, stage, output string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.append(level, source, stage, output)
	for j.bytes > maxJournal && len(j.entries) > 1 {
		j.bytes -= weight(j.entries[0])
		j.entries = j.entries[1:] // not moved: this happens line by line
		j.dropped++
	}
	j.signal()
}

func (j *journal) append(level events.LogLevel, source, stage, output string) {
	j.seq++
	e := events.AgentLogEntry{
		Seq: j.seq, CreatedAt: time.Now().UTC(), Level: level, Source: source, Stage: stage, Output: output,
	}
	j.bytes += weight(e)
	j.entries = append(j.entries, e)
}

// weight is about what a line takes in memory, and on the wire, in bytes: an
// empty one, too, is not nothing.
func weight(e events.AgentLogEntry) int { return len(e.Output) + 128 }

// lossBefore says in the place of the lines before e, and with the number of the
// last of them, that they are lost.
func lossBefore(e events.AgentLogEntry, lines int) events.AgentLogEntry {
	return events.AgentLogEntry{
		Seq: e.Seq - 1, CreatedAt: e.CreatedAt, Level: events.LogWarn, Source: sourceAgent, Stage: e.Stage,
		Output: fmt.Sprintf("%d lines of this log were lost: the coordinator was out of reach for too long", lines),
	}
}

// lifecycle enters a state of life.
func (j *journal) lifecycle(l events.Lifecycle, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	msg := &events.AgentLifecycle{Lifecycle: l, ChangedAt: time.Now().UTC()}
	if err != nil {
		msg.Error = err.Error()
	}
	j.life = append(j.life, state{msg, j.seq})
	j.signal()
}

func (j *journal) signal() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// next takes the next message off, or nil.
func (j *journal) next() events.ChannelMessage {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.busy = false
	limit := j.seq
	if len(j.life) > 0 {
		limit = j.life[0].after
	}
	n, size := 0, 0
	for n < len(j.entries) && j.entries[n].Seq <= limit {
		if size += weight(j.entries[n]); size > maxBatch && n > 0 {
			break
		}
		j.bytes -= weight(j.entries[n])
		n++
	}
	switch {
	case n > 0:
		var batch []events.AgentLogEntry
		if j.dropped > 0 {
			batch = append(batch, lossBefore(j.entries[0], j.dropped))
			j.dropped = 0
		}
		batch = append(batch, j.entries[:n]...)
		if j.entries = j.entries[n:]; len(j.entries) == 0 {
			j.entries = nil
		}
		j.busy = true
		return &events.AgentLogs{Entries: batch}
	case len(j.life) > 0:
		msg := j.life[0].msg
		j.life = j.life[1:]
		j.busy = true
		return msg
	default:
		close(j.told)
		j.told = make(chan struct{})
		return nil
	}
}

// send hands everything over, as it comes, until ctx ends.
func (j *journal) send(ctx context.Context, send func(context.Context, events.ChannelMessage) error) {
	for {
		for m := j.next(); m != nil; m = j.next() {
			if send(ctx, m) != nil {
				return
			}
		}
		select {
		case <-j.wake:
		case <-ctx.Done():
			return
		}
	}
}

// flush waits until everything is handed over, or ctx ends.
func (j *journal) flush(ctx context.Context) {
	for {
		j.mu.Lock()
		done := len(j.entries) == 0 && len(j.life) == 0 && !j.busy
		told := j.told
		j.mu.Unlock()
		if done {
			return
		}
		select {
		case <-told:
		case <-ctx.Done():
			return
		}
	}
}
