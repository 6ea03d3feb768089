package coordinator

import (
	"bytes"
	"io"
	"net/http"
	"sort"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
)

func description(t testing.TB) *openapi3.T {
	doc, err := openapi3.NewLoader().LoadFromData(OpenAPI)
	require.NoError(t, err)
	require.NoError(t, doc.Validate(t.Context()))
	return doc
}

func TestTheDescriptionHasEveryRouteAndNoOther(t *testing.T) {
	doc := description(t)
	type row struct {
		method, path, operation, scopes string
		open                            bool
	}
	var described, served []row
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			r := row{method: method, path: path, operation: op.OperationID, open: op.Security != nil && len(*op.Security) == 0}
			if list, ok := op.Extensions["x-scopes"].([]any); ok {
				for _, s := range list {
					r.scopes += " " + s.(string)
				}
			}
			described = append(described, r)
		}
	}
	for _, route := range routes {
		r := row{method: route.method, path: route.path, operation: route.operation, open: route.open}
		for _, s := range route.scopes {
			r.scopes += " " + string(s)
		}
		served = append(served, r)
	}
	for _, rows := range [][]row{described, served} {
		sort.Slice(rows, func(i, j int) bool { return rows[i].path+rows[i].method < rows[j].path+rows[j].method })
	}
	require.Equal(t, described, served)
}

func TestTheDescriptionKnowsEveryErrorCode(t *testing.T) {
	var want []any
	for code := range statuses {
		want = append(want, string(code))
	}
	require.ElementsMatch(t, want, description(t).Components.Schemas["Error"].Value.Properties["code"].Value.Enum)
}

// judge is a client that holds each request and answer against the description.
type judge struct {
	t       testing.TB
	router  routers.Router
	next    http.RoundTripper
	answers map[string]bool
}

func (j *judge) RoundTrip(req *http.Request) (*http.Response, error) {
	route, params, err := j.router.FindRoute(req)
	require.NoError(j.t, err, req.URL.Path)
	var body []byte
	if req.Body != nil {
		body, err = io.ReadAll(req.Body)
		require.NoError(j.t, err)
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	resp, err := j.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	in := &openapi3filter.RequestValidationInput{
		Request: req, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true},
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	if resp.StatusCode < 300 {
		require.NoError(j.t, openapi3filter.ValidateRequest(req.Context(), in), "%s %s", req.Method, req.URL)
	}
	answer, err := io.ReadAll(resp.Body)
	require.NoError(j.t, err)
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	if resp.StatusCode < 300 || strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		require.NoError(j.t, openapi3filter.ValidateResponse(req.Context(), &openapi3filter.ResponseValidationInput{
			RequestValidationInput: in, Status: resp.StatusCode, Header: resp.Header,
			Body: io.NopCloser(bytes.NewReader(answer)), Options: in.Options,
		}), "%s %s: %d %s", req.Method, req.URL, resp.StatusCode, answer)
	}
	if resp.StatusCode < 300 {
		j.answers[route.Operation.OperationID] = true
	}
	return resp, nil
}

func TestASessionIsAsTheDescriptionSays(t *testing.T) {
	openapi3filter.RegisterBodyDecoder("application/jsonl", openapi3filter.FileBodyDecoder)
	s := newSite(t)
	r := s.start()
	doc := description(t)
	doc.Servers = openapi3.Servers{{URL: r.http.URL}}
	router, err := legacy.NewRouter(doc)
	require.NoError(t, err)
	j := &judge{t: t, router: router, next: r.http.Client().Transport, answers: make(map[string]bool)}
	hc := &http.Client{Transport: j}
	owner := s.token(api.ScopeOwner)
	agentToken := ""
	call := func(want int, token, method, path, body string) {
		t.Helper()
		req := r.request(method, path, token, body)
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := hc.Do(req)
		require.NoError(t, err)
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, want, resp.StatusCode, "%s %s: %s", method, path, b)
	}
	const p = apiPrefix
	hash := strings.Repeat("a", 64)

	call(200, "", "GET", "/healthz", "")
	call(200, "", "GET", "/readyz", "")
	call(200, owner, "GET", "/metrics", "")
	call(200, owner, "GET", p+"/openapi.json", "")
	call(200, owner, "GET", p+"/whoami", "")
	call(401, "", "GET", p+"/whoami", "")
	call(200, owner, "GET", p+"/templates", "")
	call(200, owner, "GET", p+"/templates/demo", "")
	call(404, owner, "GET", p+"/templates/dem", "")
	call(200, owner, "POST", p+"/templates/check", `{"definition":"name: x"}`)
	call(200, owner, "POST", p+"/templates/check", `{"definition":"nome: x"}`)
	call(200, owner, "GET", p+"/workspaces", "")
	call(201, owner, "POST", p+"/workspaces", `{"name":"demo","template":"demo"}`)
	call(409, owner, "POST", p+"/workspaces", `{"name":"demo","template":"demo"}`)
	call(400, owner, "POST", p+"/workspaces", `{"name":"demo","definition":"nome: x"}`)
	call(200, owner, "GET", p+"/workspaces", "")
	call(200, owner, "GET", p+"/workspaces/demo", "")
	call(404, owner, "GET", p+"/workspaces/dem", "")
	call(409, owner, "POST", p+"/workspaces/demo/connect", `{"key_hash":"`+hash+`"}`)
	call(201, owner, "POST", p+"/workspaces/demo/builds", `{"transition":"start","request_id":"r"}`)
	call(200, owner, "POST", p+"/workspaces/demo/builds", `{"transition":"start","request_id":"r"}`)
	call(200, owner, "GET", p+"/workspaces/demo/builds/1/logs?follow=true", "")
	rec, _, err := r.c.workspaces.resolve(t.Context(), "demo")
	require.NoError(t, err)
	r.awaitRecord(rec.ID, func(rec *record) bool { return rec.Agents[0].Lifecycle == events.LifecycleReady })
	call(200, owner, "GET", p+"/workspaces/demo", "")
	call(200, owner, "GET", p+"/workspaces/demo/builds", "")
	call(200, owner, "GET", p+"/workspaces/demo/builds/1", "")
	call(404, owner, "GET", p+"/workspaces/demo/builds/2", "")
	call(200, owner, "GET", p+"/workspaces/demo/builds/1/logs?after=0&limit=2", "")
	call(200, owner, "GET", p+"/workspaces/demo/agents/main/logs", "")
	call(404, owner, "GET", p+"/workspaces/demo/agents/side/logs", "")
	call(200, owner, "POST", p+"/workspaces/demo/connect", `{"key_hash":"`+hash+`","candidates":["127.0.0.1:1"]}`)
	call(409, owner, "POST", p+"/workspaces/demo/agent-token", `{}`)
	call(400, owner, "GET", p+"/workspaces/demo/agent-connection-watch", "")
	tok, err := r.c.issueAgentToken(rec.ID, 1)
	require.NoError(t, err)
	agentToken = tok.Token
	call(200, agentToken, "GET", p+"/agent/manifest", "")
	call(201, agentToken, "POST", p+"/agent/token", "")
	call(403, agentToken, "GET", p+"/workspaces", "")
	call(400, agentToken, "GET", p+"/agent-channel/ws", "")
	call(201, owner, "POST", p+"/workspaces", `{"name":"hand","definition":"name: hand\nprovisioner: none\n"}`)
	call(201, owner, "POST", p+"/workspaces/hand/builds", `{"transition":"start"}`)
	call(201, owner, "POST", p+"/workspaces/hand/agent-token", `{"agent":"main"}`)
	tok, err = r.c.issueAgentToken(rec.ID, 7)
	require.NoError(t, err)
	call(403, tok.Token, "GET", p+"/agent/manifest", "")

	// The WebSockets are held against the protocol's pages, not this one.
	for _, route := range routes {
		if route.operation != "watchAgentConnection" && route.operation != "agentChannel" {
			require.True(t, j.answers[route.operation], "%s was not called", route.operation)
		}
	}
}
