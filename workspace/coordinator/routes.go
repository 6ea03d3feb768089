package coordinator

import (
	"net/http"

	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/token"
)

// apiPrefix begins the path of every route of the API.
const apiPrefix = "/api/v1"

// handler answers one route. What it returns is answered as an api.Error,
// unless it has answered already.
type handler func(c *Coordinator, w http.ResponseWriter, r *http.Request, who token.Claims) error

// route is one row of the table of everything that the coordinator answers.
type route struct {
	method, path string
	// scopes may use it; nil only if open is set.
	scopes []api.Scope
	// open lets everybody in, without a token.
	open bool
	// stream is set if an answer may go on for as long as its reader likes.
	stream bool
	// operation is its operationId in the OpenAPI description.
	operation string
	handle    handler
}

// Who may use a route.
var (
	owners  = []api.Scope{api.ScopeOwner}
	users   = []api.Scope{api.ScopeOwner, api.ScopeViewer}
	agents  = []api.Scope{api.ScopeAgent}
	anybody = []api.Scope{api.ScopeOwner, api.ScopeViewer, api.ScopeAgent}
)

// routes is that table. Nothing is served that is not in it.
var routes = []route{
	{http.MethodGet, "/healthz", nil, true, false, "health", (*Coordinator).getHealth},
	{http.MethodGet, "/readyz", nil, true, false, "ready", (*Coordinator).getReady},
	{http.MethodGet, "/metrics", users, false, false, "metrics", (*Coordinator).getMetrics},
	{http.MethodGet, apiPrefix + "/openapi.json", anybody, false, false, "openapi", (*Coordinator).getOpenAPI},
	{http.MethodGet, apiPrefix + "/whoami", anybody, false, false, "whoami", (*Coordinator).getWhoami},

	{http.MethodGet, apiPrefix + "/templates", users, false, false, "listTemplates", (*Coordinator).listTemplates},
	{http.MethodGet, apiPrefix + "/templates/{name}", users, false, false, "getTemplate", (*Coordinator).getTemplate},
	{http.MethodPost, apiPrefix + "/templates/check", users, false, false, "checkTemplate", (*Coordinator).checkTemplate},

	{http.MethodGet, apiPrefix + "/workspaces", users, false, false, "listWorkspaces", (*Coordinator).listWorkspaces},
	{http.MethodPost, apiPrefix + "/workspaces", owners, false, false, "createWorkspace", (*Coordinator).createWorkspace},
	{http.MethodGet, apiPrefix + "/workspaces/{ref}", users, false, false, "getWorkspace", (*Coordinator).getWorkspace},
	{http.MethodGet, apiPrefix + "/workspaces/{ref}/builds", users, false, false, "listBuilds", (*Coordinator).listBuilds},
	{http.MethodPost, apiPrefix + "/workspaces/{ref}/builds", owners, false, false, "createBuild", (*Coordinator).createBuild},
	{http.MethodGet, apiPrefix + "/workspaces/{ref}/builds/{number}", users, false, false, "getBuild", (*Coordinator).getBuild},
	{http.MethodGet, apiPrefix + "/workspaces/{ref}/builds/{number}/logs", users, false, true, "getBuildLogs", (*Coordinator).getBuildLogs},
	{http.MethodGet, apiPrefix + "/workspaces/{ref}/agents/{agent}/logs", users, false, true, "getAgentLogs", (*Coordinator).getAgentLogs},
	{http.MethodGet, apiPrefix + "/workspaces/{ref}/agent-connection-watch", users, false, true, "watchAgentConnection", (*Coordinator).watchWorkspace},
	{http.MethodPost, apiPrefix + "/workspaces/{ref}/connect", owners, false, false, "connect", (*Coordinator).connect},
	{http.MethodPost, apiPrefix + "/workspaces/{ref}/agent-token", owners, false, false, "createAgentToken", (*Coordinator).createAgentToken},

	{http.MethodGet, apiPrefix + "/agent/manifest", agents, false, false, "getManifest", (*Coordinator).getManifest},
	{http.MethodPost, apiPrefix + "/agent/token", agents, false, false, "renewAgentToken", (*Coordinator).renewAgentToken},
	{http.MethodGet, apiPrefix + "/agent-channel/ws", agents, false, true, "agentChannel", (*Coordinator).serveChannel},
}
