package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/provision"
)

// world is the processes of a site. They outlive its coordinators, as those of
// an operating system do.
type world struct {
	site *site

	mu      sync.Mutex
	running map[string]*process // by workspace
	starts  int
	// silent keeps the agents of new processes from coming.
	silent bool
	agents sync.WaitGroup
}

type process struct {
	build int64
	agent *fakeAgent
}

func newWorld(s *site) *world { return &world{site: s, running: make(map[string]*process)} }

// end ends all processes.
func (w *world) end() {
	w.mu.Lock()
	for id := range w.running {
		w.kill(id)
	}
	w.mu.Unlock()
	w.agents.Wait()
}

// kill ends a workspace's process; w.mu is held.
func (w *world) kill(id string) {
	if p := w.running[id]; p != nil {
		if p.agent != nil {
			p.agent.kill()
		}
		delete(w.running, id)
	}
}

func (w *world) builds(id string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.running[id]; p != nil {
		return p.build
	}
	return 0
}

// provisioner is the world in the hands of one coordinator.
func (w *world) provisioner() provision.Provisioner { return &fakeProvisioner{w: w} }

type fakeProvisioner struct {
	w      *world
	mu     sync.Mutex
	closed bool
}

func say(out func(provision.Line), format string, args ...any) {
	if out != nil {
		out(provision.Line{Time: time.Now(), Level: events.LogInfo, Source: provision.SourceProvisioner, Text: fmt.Sprintf(format, args...)})
	}
}

func (p *fakeProvisioner) instance(spec provision.Spec) (*provision.Instance, error) {
	return provision.None{}.Start(context.Background(), spec, nil)
}

func (p *fakeProvisioner) gone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

func (p *fakeProvisioner) Start(ctx context.Context, spec provision.Spec, out func(provision.Line)) (*provision.Instance, error) {
	if p.gone() {
		return nil, provision.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.running[spec.WorkspaceID]; r != nil {
		if r.build != spec.Build {
			return nil, &provision.BusyError{Ref: provision.Ref{WorkspaceID: spec.WorkspaceID, WorkspaceName: spec.WorkspaceName, Build: r.build}}
		}
		return p.instance(spec)
	}
	w.starts++
	for i := range 3 {
		say(out, "build %d, line %d", spec.Build, i)
	}
	r := &process{build: spec.Build}
	w.running[spec.WorkspaceID] = r
	if !w.silent {
		r.agent = w.launch(spec)
	}
	return p.instance(spec)
}

func (p *fakeProvisioner) Stop(_ context.Context, id string, out func(provision.Line)) error {
	if p.gone() {
		return provision.ErrClosed
	}
	w := p.w
	w.mu.Lock()
	r := w.running[id]
	w.kill(id)
	w.mu.Unlock()
	if r != nil && r.agent != nil {
		<-r.agent.done
	}
	say(out, "stopped")
	return nil
}

func (p *fakeProvisioner) Recover(_ context.Context, resolve provision.Resolve) (provision.Recovered, error) {
	w := p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	var found provision.Recovered
	for id, r := range w.running {
		ref := provision.Ref{WorkspaceID: id, Build: r.build}
		spec, _, ok := resolve(ref)
		if !ok {
			w.kill(id)
			continue
		}
		i, err := p.instance(spec)
		if err != nil {
			return found, err
		}
		found.Adopted = append(found.Adopted, i)
	}
	return found, nil
}

func (p *fakeProvisioner) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

// launch starts the agent of a process; w.mu is held.
func (w *world) launch(spec provision.Spec) *fakeAgent {
	var path string
	for _, pair := range spec.Agent.Env {
		if p, ok := strings.CutPrefix(pair, AgentTokenFileEnv+"="); ok {
			path = p
		}
	}
	token, err := os.ReadFile(path)
	require.NoError(w.site.t, err)
	return w.agent(fmt.Sprintf("agent-%s-%d-%d", spec.WorkspaceID, spec.Build, w.starts), strings.TrimSpace(string(token)))
}

// agent runs an agent that lives as an honest one does: it says that it starts,
// writes a few lines, and says that it is ready.
func (w *world) agent(id, token string) *fakeAgent {
	ctx, cancel := context.WithCancel(context.Background())
	a := &fakeAgent{
		t: w.site.t, id: id, token: token, server: w.site.address,
		kill: cancel, done: make(chan struct{}), refuse: make(chan *events.SessionReject, 1),
	}
	for i := range 3 {
		a.entries = append(a.entries, events.AgentLogEntry{
			Seq: uint64(i + 1), CreatedAt: time.Now(), Level: events.LogInfo, Source: "script", Stage: "startup",
			Output: fmt.Sprintf("%s, line %d", id, i),
		})
	}
	w.agents.Go(func() {
		defer close(a.done)
		a.live(ctx)
	})
	return a
}

// fakeAgent is an agent that speaks the channel, frame by frame.
type fakeAgent struct {
	t      testing.TB
	id     string
	token  string
	server func() string
	kill   context.CancelFunc
	done   chan struct{}
	// entries are its log; all but the first stored ones are sent on each connect.
	entries []events.AgentLogEntry
	// refuse gets a reject that is final.
	refuse chan *events.SessionReject
}

var errRefused = errors.New("refused for good")

func (a *fakeAgent) live(ctx context.Context) {
	for ctx.Err() == nil {
		if errors.Is(a.connect(ctx), errRefused) {
			return
		}
		_ = sleep(ctx, 5*time.Millisecond)
	}
}

// connect holds one connection until it ends.
func (a *fakeAgent) connect(ctx context.Context) error {
	c, welcome, err := dialAgent(ctx, a.server(), a.token, a.id)
	if err != nil {
		if reject := (*events.SessionReject)(nil); errors.As(err, &reject) && !reject.Retryable {
			a.refuse <- reject
			return errRefused
		}
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.say(&events.AgentLifecycle{Lifecycle: events.LifecycleStarting})
	if n := int(welcome.LogsStored); n < len(a.entries) {
		c.say(&events.AgentLogs{Entries: a.entries[n:]})
	}
	c.say(&events.AgentLifecycle{Lifecycle: events.LifecycleReady})
	for {
		m, err := c.hear()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *events.ConnectionRequest:
			c.say(&events.ConnectionResult{RequestID: m.RequestID, KeyHash: strings.Repeat("b", 64), Candidates: []string{"127.0.0.1:9"}})
		case *events.SessionReject:
			if !m.Retryable {
				a.refuse <- m
				return errRefused
			}
		}
	}
}

// agentConn is an agent's end of a channel.
type agentConn struct {
	*websocket.Conn
}

// dialAgent connects and says hello. The error may be an *events.SessionReject.
func dialAgent(ctx context.Context, server, token, id string) (*agentConn, *events.SessionWelcome, error) {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	ws, resp, err := websocket.DefaultDialer.DialContext(ctx, strings.Replace(server, "http", "ws", 1)+apiPrefix+"/agent-channel/ws",
		http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		if resp != nil {
			return nil, nil, fmt.Errorf("%s: %w", resp.Status, err)
		}
		return nil, nil, err
	}
	c := &agentConn{ws}
	c.say(&events.SessionHello{AgentID: id, Version: "v0", Capabilities: []string{}})
	_ = ws.SetReadDeadline(time.Now().Add(soon))
	m, err := c.hear()
	_ = ws.SetReadDeadline(time.Time{})
	switch m := m.(type) {
	case *events.SessionWelcome:
		return c, m, nil
	case *events.SessionReject:
		err = m
	}
	ws.Close()
	return nil, nil, err
}

// say sends a message; that the coordinator has gone shows in hear.
func (c *agentConn) say(m events.ChannelMessage) {
	b, err := events.EncodeChannelMessage(m)
	if err == nil {
		err = c.WriteMessage(websocket.TextMessage, b)
	}
	_ = err
}

func (c *agentConn) hear() (events.ChannelMessage, error) {
	_, b, err := c.ReadMessage()
	if err != nil {
		return nil, err
	}
	return events.DecodeChannelMessage(b)
}
