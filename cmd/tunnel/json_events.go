package main

import (
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/fsm"
)

// jsonEvents writes the events of `up -o json`: one object per line, with the
// fields that docs/cli.md promises. A new field may be added; none is renamed
// or removed.
type jsonEvents struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func newJSONEvents(w io.Writer) *jsonEvents { return &jsonEvents{enc: json.NewEncoder(w)} }

// jsonEvent is every field that any event has; the comments name the events.
type jsonEvent struct {
	Event string    `json:"event"` // state, log, forward, ready, path, warning, error, exit
	Time  time.Time `json:"time"`

	From    string `json:"from,omitempty"`    // state
	To      string `json:"to,omitempty"`      // state
	Trigger string `json:"trigger,omitempty"` // state
	Attempt int    `json:"attempt,omitempty"` // state

	Log    string `json:"log,omitempty"`    // log: build or agent
	Level  string `json:"level,omitempty"`  // log
	Source string `json:"source,omitempty"` // log
	Stage  string `json:"stage,omitempty"`  // log
	Output string `json:"output,omitempty"` // log

	Local  string `json:"local,omitempty"`  // forward: address
	Remote string `json:"remote,omitempty"` // forward: port or host:port
	URL    string `json:"url,omitempty"`    // forward

	Workspace  string `json:"workspace,omitempty"`   // ready
	DurationMS int64  `json:"duration_ms,omitempty"` // ready

	Path     string  `json:"path,omitempty"`     // path: direct, relay or websocket
	Addr     string  `json:"addr,omitempty"`     // path
	RTTMS    float64 `json:"rtt_ms,omitempty"`   // path
	Degraded *bool   `json:"degraded,omitempty"` // path
	Reason   string  `json:"reason,omitempty"`   // path

	Message string   `json:"message,omitempty"` // warning, error
	Hints   []string `json:"hints,omitempty"`   // error
	Code    *int     `json:"code,omitempty"`    // error, exit
}

func (j *jsonEvents) emit(e jsonEvent) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	j.mu.Lock()
	defer j.mu.Unlock()
	_ = j.enc.Encode(e) // a reader that went away does not end the tunnel
}

func (j *jsonEvents) state(t fsm.Transition) {
	j.emit(jsonEvent{Event: "state", Time: t.Time, From: t.From.String(), To: t.To.String(), Trigger: t.Trigger.String(), Attempt: t.Attempt})
}

func (j *jsonEvents) log(kind string, l events.Log) {
	j.emit(jsonEvent{Event: "log", Time: l.CreatedAt, Log: kind, Level: l.Level.String(), Source: l.Source, Stage: l.Stage, Output: l.Output})
}

func (j *jsonEvents) path(p events.PathUpdate) {
	degraded := p.Degraded
	j.emit(jsonEvent{Event: "path", Path: p.Kind.String(), Addr: p.Addr, RTTMS: float64(p.RTT) / 1e6, Degraded: &degraded, Reason: p.Reason})
}

func (j *jsonEvents) failed(f *failure) {
	code := f.code
	j.emit(jsonEvent{Event: "error", Message: oneLine(f.err.Error()), Hints: f.hints, Code: &code})
}

func (j *jsonEvents) exit(code int) { j.emit(jsonEvent{Event: "exit", Code: &code}) }
