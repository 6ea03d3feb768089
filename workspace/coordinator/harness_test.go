package coordinator

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/client"
	"github.com/tunneler/tunneler/workspace/provision"
	"github.com/tunneler/tunneler/workspace/store"
	"github.com/tunneler/tunneler/workspace/template"
	"github.com/tunneler/tunneler/workspace/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience of tests for what other processes and goroutines do: nothing takes
// as long.
const soon = 20 * time.Second

// site is a machine on which coordinators come and go: what is on its disk, and
// the processes that outlive them.
type site struct {
	t         testing.TB
	store     *store.Store
	authority *token.Authority
	dir       string
	world     *world

	mu  sync.Mutex
	url string // of the coordinator that runs
}

func newSite(t testing.TB) *site {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Options{Dir: filepath.Join(dir, "store"), NoSync: true})
	require.NoError(t, err)
	key, err := token.GenerateKey()
	require.NoError(t, err)
	site := &site{t: t, store: s, authority: &token.Authority{Key: key}, dir: dir}
	site.world = newWorld(site)
	t.Cleanup(func() {
		site.world.end()
		require.NoError(t, s.Close())
	})
	return site
}

// address is where the coordinator is at the moment.
func (s *site) address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.url
}

func (s *site) token(scope api.Scope) string {
	tok, err := s.authority.Issue(token.Claims{Subject: "ann", Scope: scope}, time.Hour)
	require.NoError(s.t, err)
	return tok.Token
}

// running is a coordinator that serves.
type running struct {
	*client.Client
	t    testing.TB
	site *site
	c    *Coordinator
	http *httptest.Server

	ran  chan error
	once sync.Once
}

// start brings up a coordinator. edit may change how.
func (s *site) start(edit ...func(*Config)) *running {
	cfg := Config{
		Store: s.store, Authority: s.authority, WorkspaceDir: filepath.Join(s.dir, "w"),
		Provisioners: map[template.Provisioner]provision.Provisioner{
			template.ProvisionerProcess: s.world.provisioner(), template.ProvisionerNone: provision.None{},
		},
		Agent:  provision.AgentSpec{Argv: []string{"/bin/false"}},
		Logger: zaptest.NewLogger(s.t, zaptest.Level(zap.ErrorLevel)),
	}
	for _, e := range edit {
		e(&cfg)
	}
	c, err := New(cfg)
	require.NoError(s.t, err)
	r := &running{t: s.t, site: s, c: c, ran: make(chan error, 1)}
	r.http = httptest.NewUnstartedServer(nil)
	r.http.Config = NewHTTPServer(c.Handler())
	r.http.Start()
	s.mu.Lock()
	s.url = r.http.URL
	s.mu.Unlock()
	go func() { r.ran <- c.Run(context.Background()) }()
	r.Client = client.New(client.FixedURL(r.http.URL), client.StaticToken(s.token(api.ScopeOwner)), client.Options{})
	s.t.Cleanup(r.stop)
	r.until("ready", func() bool { return c.ready() })
	return r
}

// stop ends the coordinator in order.
func (r *running) stop() {
	r.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		require.NoError(r.t, r.c.Close(ctx))
		require.NoError(r.t, <-r.ran)
		r.Client.Close()
		r.http.CloseClientConnections()
		r.http.Close()
	})
}

// until waits for what a goroutine of the coordinator brings about.
func (r *running) until(what string, ok func() bool) {
	r.t.Helper()
	require.Eventually(r.t, ok, soon, 2*time.Millisecond, what)
}

// awaitRecord waits until a record, as the mirror has it, is as wanted.
func (r *running) awaitRecord(id string, ok func(*record) bool) record {
	r.t.Helper()
	changes := r.c.workspaces.cache.Subscribe(id)
	defer changes.Close()
	late := time.After(soon)
	for {
		rec, _ := r.c.workspaces.cached(id)
		if ok(&rec) {
			return rec
		}
		select {
		case <-changes.C:
			changes.Take()
		case <-late:
			require.FailNow(r.t, "the record does not become as it should", "%+v", rec)
		}
	}
}

// make makes a workspace from a template's text.
func (r *running) make(name, definition string) api.Workspace {
	r.t.Helper()
	w, err := r.CreateWorkspace(r.t.Context(), api.CreateWorkspace{Name: name, Definition: definition})
	require.NoError(r.t, err)
	return w
}

// build has a build made and waits for its end.
func (r *running) build(ref string, tr events.Transition) api.Build {
	r.t.Helper()
	b, err := r.CreateBuild(r.t.Context(), ref, api.CreateBuild{Transition: tr})
	require.NoError(r.t, err)
	return r.awaitBuild(ref, b.Number)
}

func (r *running) awaitBuild(ref string, number int64) api.Build {
	r.t.Helper()
	require.NoError(r.t, r.FollowBuildLogs(r.t.Context(), ref, number, 0, func(events.Log) error { return nil }))
	b, err := r.Build(r.t.Context(), ref, number)
	require.NoError(r.t, err)
	require.True(r.t, b.Status.Final())
	return b
}

// buildLog is the text of a build's log.
func (r *running) buildLog(ref string, number int64) (lines []string) {
	r.t.Helper()
	page, err := r.BuildLogs(r.t.Context(), ref, number, client.LogOptions{})
	require.NoError(r.t, err)
	for _, l := range page.Logs {
		lines = append(lines, l.Output)
	}
	return lines
}

// do sends a request as it is, and gives status and body of the answer.
func (r *running) do(req *http.Request) *http.Response {
	r.t.Helper()
	resp, err := r.http.Client().Do(req)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// dial opens a bare connection to the coordinator.
func (r *running) dial() net.Conn {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.http.Listener.Addr().String())
	require.NoError(r.t, err)
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

const (
	processTemplate = "name: proc\nstart_timeout: 20s\n"
	noneTemplate    = "name: byhand\nprovisioner: none\nstart_timeout: 20s\n"
)

// watch watches a workspace until it cannot be watched any more.
func (r *running) watch(ctx context.Context, ref string, emit func(events.Event)) error {
	return r.Watch(ctx, ref, client.WatchOptions{Emit: emit})
}
