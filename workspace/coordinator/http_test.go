package coordinator

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/token"
)

// concrete fills the parameters of a route's path.
func concrete(path string) string {
	return strings.NewReplacer("{ref}", "demo", "{number}", "1", "{agent}", "main", "{name}", "demo").Replace(path)
}

func (r *running) request(method, path, token, body string) *http.Request {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.http.URL+path, strings.NewReader(body))
	require.NoError(r.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req
}

func errorIn(t testing.TB, resp *http.Response) api.Error {
	t.Helper()
	var e api.Error
	require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&e))
	return e
}

// What is open is said here and nowhere else.
var open = []string{"/healthz", "/readyz"}

func TestOnlyWhatIsDeclaredOpenIsOpen(t *testing.T) {
	for _, r := range routes {
		require.Equal(t, slices.Contains(open, r.path), r.open, r.path)
		require.Equal(t, r.open, len(r.scopes) == 0, "%s %s is open, or names its scopes", r.method, r.path)
	}
}

func TestEveryRouteHoldsItsScopes(t *testing.T) {
	s := newSite(t)
	r := s.start()
	r.make("demo", processTemplate)
	require.Equal(t, events.JobSucceeded, r.build("demo", events.TransitionStart).Status)
	expired, err := (&token.Authority{Key: s.authority.Key, Now: func() time.Time { return time.Now().Add(-time.Hour) }}).
		Issue(token.Claims{Subject: "ann", Scope: api.ScopeOwner}, time.Minute)
	require.NoError(t, err)
	foreignKey, err := token.GenerateKey()
	require.NoError(t, err)
	foreign, err := (&token.Authority{Key: foreignKey}).Issue(token.Claims{Subject: "ann", Scope: api.ScopeOwner}, time.Hour)
	require.NoError(t, err)
	agent, err := s.authority.Issue(token.Claims{Subject: "x", Scope: api.ScopeAgent, Workspace: "ws_none", Build: 1, Agent: "main"}, time.Hour)
	require.NoError(t, err)
	tokens := map[api.Scope]string{api.ScopeOwner: s.token(api.ScopeOwner), api.ScopeViewer: s.token(api.ScopeViewer), api.ScopeAgent: agent.Token}

	for _, route := range routes {
		if route.open {
			continue
		}
		path := concrete(route.path)
		for name, raw := range map[string]string{"no token": "", "nonsense": "abc", "an expired token": expired.Token, "another server's token": foreign.Token} {
			resp := r.do(r.request(route.method, path, raw, "{}"))
			require.Equal(t, http.StatusUnauthorized, resp.StatusCode, "%s %s with %s", route.method, path, name)
			require.Equal(t, api.CodeUnauthorized, errorIn(t, resp).Code)
			require.NotEmpty(t, resp.Header.Get("WWW-Authenticate"))
		}
		for scope, raw := range tokens {
			resp := r.do(r.request(route.method, path, raw, "{}"))
			if slices.Contains(route.scopes, scope) {
				require.NotEqual(t, http.StatusUnauthorized, resp.StatusCode, "%s %s by %s", route.method, path, scope)
				continue
			}
			require.Equal(t, http.StatusForbidden, resp.StatusCode, "%s %s by %s", route.method, path, scope)
			require.Equal(t, api.CodeForbidden, errorIn(t, resp).Code)
		}
	}
}

func TestWhatIsOpenSaysNothing(t *testing.T) {
	r := newSite(t).start()
	for _, path := range open {
		resp := r.do(r.request(http.MethodGet, path, "", ""))
		require.Equal(t, http.StatusOK, resp.StatusCode)
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, "ok\n", string(b))
	}
	r.c.storeHealthy.Store(false)
	resp := r.do(r.request(http.MethodGet, "/readyz", "", ""))
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "not ready\n", string(b))
}

func TestWhatIsNotThereIsSaidSo(t *testing.T) {
	r := newSite(t).start()
	owner := r.site.token(api.ScopeOwner)
	resp := r.do(r.request(http.MethodGet, "/api/v2/workspaces", owner, ""))
	require.Equal(t, http.StatusNotFound, resp.StatusCode)
	require.Equal(t, api.CodeNotFound, errorIn(t, resp).Code)
	resp = r.do(r.request(http.MethodDelete, apiPrefix+"/workspaces", owner, ""))
	require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode)
	require.ElementsMatch(t, []string{"GET", "POST"}, strings.Split(resp.Header.Get("Allow"), ", "))
	require.Equal(t, api.CodeMethod, errorIn(t, resp).Code)

	r.make("demo", noneTemplate)
	_, err := r.Workspace(t.Context(), "demp")
	require.Equal(t, []string{"demo"}, apiErr(t, err).Nearest)
	for _, ref := range []string{"ws_nothing", "ws_..", "UPPER", strings.Repeat("a", 500), "a b"} {
		_, err = r.Workspace(t.Context(), ref)
		require.Equal(t, api.CodeNotFound, apiErr(t, err).Code, ref)
		require.Less(t, len(apiErr(t, err).Message), 200)
	}
	_, err = r.Template(t.Context(), "dem")
	require.Equal(t, []string{"demo"}, apiErr(t, err).Nearest)
	_, err = r.CreateWorkspace(t.Context(), api.CreateWorkspace{Name: "x", Template: "dem"})
	require.Equal(t, []string{"demo"}, apiErr(t, err).Nearest)
}

func TestBadRequestsAreRefusedWithWhatIsWrong(t *testing.T) {
	r := newSite(t).start()
	owner := r.site.token(api.ScopeOwner)
	r.make("demo", noneTemplate)
	hash := strings.Repeat("a", 64)
	for name, c := range map[string]struct{ path, body, want string }{
		"no body":                  {"/workspaces", "", "has no body"},
		"not JSON":                 {"/workspaces", "{", "unexpected EOF"},
		"not an object":            {"/workspaces", "[]", "cannot unmarshal array"},
		"an unknown field":         {"/workspaces", `{"name":"x","template":"demo","owner":"eve"}`, `unknown field "owner"`},
		"a field of another type":  {"/workspaces", `{"name":7}`, "name"},
		"two values":               {"/workspaces", `{"name":"x","template":"demo"} {}`, "something follows"},
		"no name":                  {"/workspaces", `{"template":"demo"}`, "bad workspace name"},
		"a bad name":               {"/workspaces", `{"name":"A_b","template":"demo"}`, `"A_b"`},
		"a name of 64 bytes":       {"/workspaces", `{"name":"` + strings.Repeat("a", 64) + `","template":"demo"}`, "1 to 63"},
		"no template":              {"/workspaces", `{"name":"x"}`, "neither template nor definition"},
		"two templates":            {"/workspaces", `{"name":"x","template":"demo","definition":"name: x"}`, "both template and definition"},
		"a template with a defect": {"/workspaces", `{"name":"x","definition":"name: x\nprots: []\n"}`, "prots"},
		"no transition":            {"/workspaces/demo/builds", `{}`, "start, stop or delete"},
		"an unknown transition":    {"/workspaces/demo/builds", `{"transition":"explode"}`, "start, stop or delete"},
		"a long request id":        {"/workspaces/demo/builds", `{"transition":"start","request_id":"` + hash + `x"}`, "at most 64"},
		"no key hash":              {"/workspaces/demo/connect", `{}`, "key_hash"},
		"a bad candidate":          {"/workspaces/demo/connect", `{"key_hash":"` + hash + `","candidates":["localhost:1"]}`, "localhost:1"},
		"too many candidates":      {"/workspaces/demo/connect", `{"key_hash":"` + hash + `","candidates":[` + strings.Repeat(`"[::1]:1",`, 64) + `"[::1]:1"]}`, "at most 64"},
	} {
		t.Run(name, func(t *testing.T) {
			resp := r.do(r.request(http.MethodPost, apiPrefix+c.path, owner, c.body))
			require.Equal(t, http.StatusBadRequest, resp.StatusCode)
			e := errorIn(t, resp)
			require.Equal(t, api.CodeBadRequest, e.Code)
			require.Contains(t, e.Message, c.want)
		})
	}
	for _, query := range []string{"builds?limit=0", "builds?limit=1001", "builds?before=x", "builds/0", "builds/x", "builds/99999999999999999999",
		"builds/1/logs?after=-1", "agents/main/logs?limit=x", "agents/main/logs?follow=maybe", "agent-connection-watch?after_build_log=x"} {
		resp := r.do(r.request(http.MethodGet, apiPrefix+"/workspaces/demo/"+query, owner, ""))
		require.Equal(t, http.StatusBadRequest, resp.StatusCode, query)
	}
	resp := r.do(r.request(http.MethodPost, apiPrefix+"/workspaces", owner, `{"name":"x","definition":"name: x\nprots: []\n"}`))
	problem := errorIn(t, resp).Problem
	require.Equal(t, "template:2:1", fmt.Sprintf("%s:%d:%d", problem.File, problem.Line, problem.Column))
}

func TestAPageOfAnotherOriginOpensNoWebSocket(t *testing.T) {
	r := newSite(t).start()
	r.make("demo", noneTemplate)
	for _, path := range []string{"/workspaces/demo/agent-connection-watch", "/agent-channel/ws"} {
		raw := r.site.token(api.ScopeOwner)
		if path == "/agent-channel/ws" {
			tok, err := r.c.issueAgentToken("ws_x", 1)
			require.NoError(t, err)
			raw = tok.Token
		}
		req := r.request(http.MethodGet, apiPrefix+path, raw, "")
		for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": "https://evil.example"} {
			req.Header.Set(k, v)
		}
		require.Equal(t, http.StatusForbidden, r.do(req).StatusCode, path)
	}
}

func TestMetricsWantATokenAndShowWhatHappens(t *testing.T) {
	r := newSite(t).start()
	r.make("demo", processTemplate)
	require.Equal(t, events.JobSucceeded, r.build("demo", events.TransitionStart).Status)
	for _, line := range []string{
		`tunneler_coordinator_builds_total{status="succeeded",transition="start"} 1`,
		`tunneler_coordinator_agents_connected 1`,
		`tunneler_coordinator_info{version=""} 1`,
		`tunneler_coordinator_http_requests_total{route="/api/v1/workspaces",status="201"} 1`,
		`tunneler_coordinator_http_request_duration_seconds_count{route="/api/v1/workspaces"} 1`,
		`tunneler_coordinator_build_duration_seconds_count{status="succeeded",transition="start"} 1`,
		`tunneler_coordinator_channel_messages_total{type="agent.lifecycle"} 2`,
	} {
		r.until(line, func() bool { // what happened is counted right after it can be seen
			resp := r.do(r.request(http.MethodGet, "/metrics", r.site.token(api.ScopeViewer), ""))
			b, err := io.ReadAll(resp.Body)
			return err == nil && resp.StatusCode == http.StatusOK && strings.Contains(string(b), line+"\n")
		})
	}
}

func TestTemplatesAreTheBuiltInOnesAndThoseOfTheDirectory(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("web.yaml", "name: web\ndescription: ours\n")
	write("broken.yaml", "name: [")
	write("notes.txt", "no template")
	r := newSite(t).start(func(c *Config) { c.TemplateDir = dir })
	list, err := r.Templates(t.Context())
	require.NoError(t, err)
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
		require.Empty(t, e.Definition)
	}
	require.Equal(t, []string{"demo", "web"}, names)
	require.True(t, list[0].Builtin)

	web, err := r.Template(t.Context(), "web")
	require.NoError(t, err)
	require.Equal(t, "name: web\ndescription: ours\n", web.Definition)
	demo, err := r.Template(t.Context(), "demo")
	require.NoError(t, err)
	check, err := r.CheckTemplate(t.Context(), api.CheckTemplate{Definition: demo.Definition})
	require.NoError(t, err)
	require.Nil(t, check.Problem)
	require.Equal(t, "demo", check.Template.Name)
	check, err = r.CheckTemplate(t.Context(), api.CheckTemplate{File: "x.yaml", Definition: "name: x\nports: 3\n"})
	require.NoError(t, err)
	require.Equal(t, "x.yaml", check.Problem.File)
	require.Equal(t, 2, check.Problem.Line)

	write("demo.yaml", "name: demo\ndescription: mine\n")
	demo, err = r.Template(t.Context(), "demo")
	require.NoError(t, err)
	require.False(t, demo.Builtin, "an operator's own wins")
}

func TestAStoreThatIsOutOfReachIsSaidSoAndNothingIsAcknowledged(t *testing.T) {
	s := newSite(t)
	r := s.start()
	r.make("demo", processTemplate)
	require.NoError(t, s.store.Close())
	for _, req := range []*http.Request{
		r.request(http.MethodPost, apiPrefix+"/workspaces/demo/builds", s.token(api.ScopeOwner), `{"transition":"start"}`),
		r.request(http.MethodPost, apiPrefix+"/workspaces", s.token(api.ScopeOwner), `{"name":"x","template":"demo"}`),
		r.request(http.MethodGet, apiPrefix+"/workspaces/demo", s.token(api.ScopeOwner), ""),
	} {
		resp := r.do(req)
		require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		require.NotEmpty(t, resp.Header.Get("Retry-After"))
		require.Equal(t, api.CodeUnavailable, errorIn(t, resp).Code)
	}
	r.c.checkHealth(t.Context())
	require.Equal(t, http.StatusServiceUnavailable, r.do(r.request(http.MethodGet, "/readyz", "", "")).StatusCode)
	require.Error(t, <-r.ran, "there is nothing left to run on")
	r.ran <- nil
}

func TestTooManyStreamsAreTurnedAway(t *testing.T) {
	r := newSite(t).start(func(c *Config) { c.MaxWatches = 1 })
	r.make("demo", noneTemplate)
	ctx, cancel := context.WithCancel(t.Context())
	up := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() { done <- r.watch(ctx, "demo", func(events.Event) { notify(up) }) }()
	<-up
	resp := r.do(r.request(http.MethodGet, apiPrefix+"/workspaces/demo/agent-connection-watch", r.site.token(api.ScopeViewer), ""))
	require.Equal(t, http.StatusTooManyRequests, resp.StatusCode)
	require.Equal(t, api.CodeTooMany, errorIn(t, resp).Code)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	r.until("the place is free", func() bool { return r.c.watches.taken.Load() == 0 })
}

func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
