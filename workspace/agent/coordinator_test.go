package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/channel"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/template"
)

// patience is how long a test waits for a real process before it has failed;
// nothing passes by waiting for it.
const patience = 30 * time.Second

// coordinator is a fake one behind real HTTP: it hands out a manifest, and
// keeps what the agent says in the order in which it was said.
type coordinator struct {
	t        *testing.T
	server   *httptest.Server
	manifest api.Manifest

	mu     sync.Mutex
	token  string // what is accepted; empty for nothing
	renew  api.Token
	reject *events.SessionReject
	said   []string // "life ready", "line startup_script: hello"
	stored uint64
	conn   *channel.ServerConn
	hellos int
	acks   bool
	// changed is closed and made anew with each change.
	changed chan struct{}
}

func newCoordinator(t *testing.T, definition string) *coordinator {
	t.Helper()
	parsed, err := template.Parse("test", []byte("name: test\n"+definition))
	require.NoError(t, err)
	co := &coordinator{
		t: t, token: "secret-token", acks: true, changed: make(chan struct{}),
		manifest: api.Manifest{WorkspaceID: "id1", WorkspaceName: "demo", Build: 3, AgentName: "main", Template: *parsed},
	}
	co.server = httptest.NewServer(co.routes())
	t.Cleanup(func() {
		co.drop()
		co.server.Close()
	})
	return co
}

func (co *coordinator) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/agent/manifest", co.authorized(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(co.manifest)
	}))
	mux.HandleFunc("POST /api/v1/agent/token", co.authorized(func(w http.ResponseWriter, _ *http.Request) {
		co.mu.Lock()
		defer co.mu.Unlock()
		co.token = co.renew.Token
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(co.renew)
	}))
	mux.HandleFunc("GET "+channelPath, co.authorized(co.serveChannel))
	return mux
}

func (co *coordinator) authorized(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		co.mu.Lock()
		token := co.token
		co.mu.Unlock()
		if token == "" || r.Header.Get("Authorization") != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
			_ = json.NewEncoder(w).Encode(api.Error{Code: api.CodeUnauthorized, Message: "the token has expired"})
			return
		}
		h(w, r)
	}
}

func (co *coordinator) serveChannel(w http.ResponseWriter, r *http.Request) {
	conn, err := channel.Accept(w, r, channel.ServerOptions{
		Hello: func(context.Context, *events.SessionHello) (*events.SessionWelcome, *events.SessionReject) {
			co.mu.Lock()
			defer co.mu.Unlock()
			co.hellos++
			return &events.SessionWelcome{SessionID: "s", LogsStored: co.stored}, co.reject
		},
	})
	if err != nil {
		return
	}
	co.mu.Lock()
	co.conn = conn
	co.broadcast()
	co.mu.Unlock()
	_ = conn.Run(context.Background(), func(ctx context.Context, m events.ChannelMessage) { co.hear(ctx, conn, m) })
}

func (co *coordinator) hear(ctx context.Context, conn *channel.ServerConn, m events.ChannelMessage) {
	co.mu.Lock()
	defer co.mu.Unlock()
	defer co.broadcast()
	switch m := m.(type) {
	case *events.AgentLifecycle:
		word := "life " + m.Lifecycle.String()
		if m.Error != "" {
			word += ": " + m.Error
		}
		// A state that is repeated on a new connection is not news.
		if co.lastLife() != word {
			co.said = append(co.said, word)
		}
	case *events.AgentLogs:
		for _, e := range m.Entries {
			if e.Seq > co.stored {
				co.stored = e.Seq
				co.said = append(co.said, fmt.Sprintf("line %s: %s", e.Source, e.Output))
			}
		}
		if co.acks {
			_ = conn.Send(ctx, &events.AgentLogsAck{Seq: co.stored})
		}
	}
}

func isLife(word string) bool { return strings.HasPrefix(word, "life ") }

func (co *coordinator) broadcast() {
	close(co.changed)
	co.changed = make(chan struct{})
}

// until waits until what was said satisfies enough, and gives it.
func (co *coordinator) until(what string, enough func(said []string) bool) []string {
	co.t.Helper()
	timeout := time.After(patience)
	for {
		co.mu.Lock()
		said, changed := slices.Clone(co.said), co.changed
		co.mu.Unlock()
		if enough(said) {
			return said
		}
		select {
		case <-changed:
		case <-timeout:
			require.Fail(co.t, "the agent did not say "+what, "it said:\n%s", strings.Join(said, "\n"))
		}
	}
}

// untilSaid waits until a line was said that contains text, and gives the first.
func (co *coordinator) untilSaid(text string) string {
	co.t.Helper()
	return co.untilSaidTimes(text, 1)
}

// untilSaidTimes waits until so many were, and gives the last of them.
func (co *coordinator) untilSaidTimes(text string, times int) string {
	co.t.Helper()
	var last string
	co.until(text, func(said []string) bool {
		n := 0
		for _, word := range said {
			if strings.Contains(word, text) && n < times {
				n++
				last = word
			}
		}
		return n == times
	})
	return last
}

// all is what was said so far.
func (co *coordinator) all() []string {
	co.mu.Lock()
	defer co.mu.Unlock()
	return slices.Clone(co.said)
}

// connects is how often the agent has said hello.
func (co *coordinator) connects() int {
	co.mu.Lock()
	defer co.mu.Unlock()
	return co.hellos
}

// life is what was said of the lifecycle so far.
func (co *coordinator) life() []string {
	co.mu.Lock()
	defer co.mu.Unlock()
	var life []string
	for _, word := range co.said {
		if isLife(word) {
			life = append(life, strings.TrimPrefix(word, "life "))
		}
	}
	return life
}

// connection waits for the agent's channel.
func (co *coordinator) connection() *channel.ServerConn {
	co.t.Helper()
	var conn *channel.ServerConn
	co.until("hello", func([]string) bool {
		co.mu.Lock()
		defer co.mu.Unlock()
		conn = co.conn
		return conn != nil
	})
	return conn
}

// drop breaks the agent's connections.
func (co *coordinator) drop() { co.server.CloseClientConnections(); co.hangUp() }

// hangUp ends the channel, which the server itself has handed over.
func (co *coordinator) hangUp() {
	co.mu.Lock()
	conn := co.conn
	co.conn = nil
	co.mu.Unlock()
	if conn != nil {
		conn.Close(4000, "dropped")
		<-conn.Done()
	}
}

func (co *coordinator) set(change func()) {
	co.mu.Lock()
	defer co.mu.Unlock()
	change()
}

// running is an agent whose Run is under way.
type running struct {
	t      *testing.T
	cfg    Config
	cancel context.CancelFunc
	ended  chan struct{}
	err    error
}

// start runs an agent of the coordinator until the test ends or stop does it.
func (co *coordinator) start(change func(*Config)) *running {
	t := co.t
	t.Helper()
	cfg := Config{
		Server: co.server.URL, TokenFile: filepath.Join(t.TempDir(), "token"), Dir: workspaceDir(t), Version: "test",
		Environ: append(os.Environ(), testMark(t)),
	}
	if change != nil {
		change(&cfg)
	}
	if _, err := os.Stat(cfg.TokenFile); err != nil {
		require.NoError(t, os.WriteFile(cfg.TokenFile, []byte("secret-token\n"), 0o600))
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{t: t, cfg: cfg, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.err = Run(ctx, cfg)
	}()
	t.Cleanup(func() {
		cancel()
		r.wait()
		t.Log(strings.Join(co.all(), "\n"))
		requireNothingLeft(t)
	})
	return r
}

// stop tells the agent to end, and gives the error of its end.
func (r *running) stop() error {
	r.cancel()
	return r.wait()
}

// wait waits for the agent's end.
func (r *running) wait() error {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		require.Fail(r.t, "the agent does not end")
	}
	return r.err
}

func (co *coordinator) lastLife() string {
	for _, word := range slices.Backward(co.said) {
		if isLife(word) {
			return word
		}
	}
	return ""
}

// testMark is in the environment of everything that a test's agent starts.
func testMark(t *testing.T) string { return "TUNNELER_TEST=" + t.Name() }
