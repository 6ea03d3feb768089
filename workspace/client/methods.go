package client

import (
	"context"
	"errors"
	"net/url"
	"strconv"

	"github.com/google/uuid"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
)

// Every method returns an *api.Error for what the coordinator refused, an
// *UnreachableError when no answer came, and the context's error when that
// ended first. A ref is a workspace's id or name.

// Whoami tells what the coordinator reads in the token.
func (c *Client) Whoami(ctx context.Context) (api.Whoami, error) {
	var out api.Whoami
	return out, c.call(ctx, get(nil, "whoami"), &out)
}

// Templates lists the coordinator's templates by name.
func (c *Client) Templates(ctx context.Context) ([]api.TemplateInfo, error) {
	var out api.TemplateList
	err := c.call(ctx, get(nil, "templates"), &out)
	return out.Templates, err
}

// Template gives one template with its definition.
func (c *Client) Template(ctx context.Context, name string) (api.TemplateInfo, error) {
	var out api.TemplateInfo
	return out, c.call(ctx, get(nil, "templates", name), &out)
}

// CheckTemplate tells whether a template is correct, and where it is not.
func (c *Client) CheckTemplate(ctx context.Context, in api.CheckTemplate) (api.TemplateCheck, error) {
	r := post(in, "templates", "check")
	r.repeatable = true
	var out api.TemplateCheck
	return out, c.call(ctx, r, &out)
}

// Workspaces lists the workspaces by name.
func (c *Client) Workspaces(ctx context.Context) ([]api.Workspace, error) {
	var out api.WorkspaceList
	err := c.call(ctx, get(nil, "workspaces"), &out)
	return out.Workspaces, err
}

// Workspace gives one workspace.
func (c *Client) Workspace(ctx context.Context, ref string) (api.Workspace, error) {
	var out api.Workspace
	return out, c.call(ctx, get(nil, "workspaces", ref), &out)
}

// CreateWorkspace makes a workspace; it does not start it.
func (c *Client) CreateWorkspace(ctx context.Context, in api.CreateWorkspace) (api.Workspace, error) {
	var out api.Workspace
	return out, c.call(ctx, post(in, "workspaces"), &out)
}

// CreateBuild asks for a build and returns it as accepted. It may be repeated
// by itself after a transient failure: in.RequestID, made up here if it is
// empty, keeps that from making two. When another build is under way the
// error is an *api.Error of api.CodeBuildActive that holds that build.
func (c *Client) CreateBuild(ctx context.Context, ref string, in api.CreateBuild) (api.Build, error) {
	if in.RequestID == "" {
		in.RequestID = uuid.NewString()
	}
	r := post(in, "workspaces", ref, "builds")
	r.repeatable = true
	var out api.Build
	return out, c.call(ctx, r, &out)
}

// StartWorkspace starts the workspace or joins the build that is under way.
// conflict is true when that is another one, which build then is.
func (c *Client) StartWorkspace(ctx context.Context, ref string) (build api.Build, conflict bool, err error) {
	build, err = c.CreateBuild(ctx, ref, api.CreateBuild{Transition: events.TransitionStart})
	if e := (*api.Error)(nil); errors.As(err, &e) && e.Code == api.CodeBuildActive && e.Build != nil {
		return *e.Build, true, nil
	}
	return build, false, err
}

// Builds lists the newest builds with a number below before, newest first; no
// bound if before is 0. limit 0 leaves the length of the page to the server.
func (c *Client) Builds(ctx context.Context, ref string, before int64, limit int) (api.BuildList, error) {
	q := url.Values{}
	setInt(q, "before", before)
	setInt(q, "limit", int64(limit))
	var out api.BuildList
	return out, c.call(ctx, get(q, "workspaces", ref, "builds"), &out)
}

// Build gives one build.
func (c *Client) Build(ctx context.Context, ref string, number int64) (api.Build, error) {
	var out api.Build
	return out, c.call(ctx, get(nil, "workspaces", ref, "builds", strconv.FormatInt(number, 10)), &out)
}

// Connect asks the workspace's agent to expect this caller.
func (c *Client) Connect(ctx context.Context, ref string, in api.Connect) (api.Session, error) {
	var out api.Session
	return out, c.call(ctx, post(in, "workspaces", ref, "connect"), &out)
}

// AgentToken gives a token for the agent of a workspace whose agent is started
// by somebody else.
func (c *Client) AgentToken(ctx context.Context, ref string, in api.CreateAgentToken) (api.Token, error) {
	var out api.Token
	return out, c.call(ctx, post(in, "workspaces", ref, "agent-token"), &out)
}

// Manifest tells an agent what it needs to know of its workspace.
func (c *Client) Manifest(ctx context.Context) (api.Manifest, error) {
	var out api.Manifest
	return out, c.call(ctx, get(nil, "agent", "manifest"), &out)
}

// RenewToken gives an agent a new token for the one that it has.
func (c *Client) RenewToken(ctx context.Context) (api.Token, error) {
	r := post(nil, "agent", "token")
	r.repeatable = true
	var out api.Token
	return out, c.call(ctx, r, &out)
}

func setInt(q url.Values, name string, v int64) {
	if v != 0 {
		q.Set(name, strconv.FormatInt(v, 10))
	}
}
