package coordinator

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/template"
	"github.com/tunneler/tunneler/workspace/token"
)

// defaultPage and maxPage are how many builds or log lines a page has.
const (
	defaultPage = 100
	maxPage     = 1000
	// maxNumber is the largest number of a build or a log line: what a
	// JavaScript number can hold.
	maxNumber = 1<<53 - 1
)

func (c *Coordinator) listWorkspaces(w http.ResponseWriter, _ *http.Request, _ token.Claims) error {
	records := c.workspaces.list()
	out := api.WorkspaceList{Workspaces: make([]api.Workspace, len(records))}
	for i := range records {
		out.Workspaces[i] = records[i].api()
	}
	slices.SortFunc(out.Workspaces, func(a, b api.Workspace) int { return strings.Compare(a.Name, b.Name) })
	return respond(w, http.StatusOK, out)
}

func (c *Coordinator) getWorkspace(w http.ResponseWriter, r *http.Request, _ token.Claims) error {
	rec, _, err := c.workspaces.find(r.Context(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	return respond(w, http.StatusOK, rec.api())
}

func (c *Coordinator) createWorkspace(w http.ResponseWriter, r *http.Request, who token.Claims) error {
	var in api.CreateWorkspace
	if err := decode(r, &in); err != nil {
		return err
	}
	if err := api.CheckName(in.Name); err != nil {
		return badRequest("%v", err)
	}
	t, err := c.templateFor(in)
	if err != nil {
		return err
	}
	if c.provisioner(t.Provisioner) == nil {
		return badRequest("this server has no provisioner %q", t.Provisioner)
	}
	rec, err := c.workspaces.create(r.Context(), in.Name, *t, who.Subject)
	if err != nil {
		return err
	}
	c.audit(who, "workspace created", rec, zap.String("template", t.Name))
	w.Header().Set("Location", apiPrefix+"/workspaces/"+rec.ID)
	return respond(w, http.StatusCreated, rec.api())
}

func (c *Coordinator) templateFor(in api.CreateWorkspace) (*template.Template, error) {
	switch {
	case in.Template != "" && in.Definition != "":
		return nil, badRequest("both template and definition are given: expected one of them")
	case in.Template != "":
		e, err := c.templates.find(in.Template)
		return &e.Template, err
	case in.Definition != "":
		t, err := template.Parse(fileName(""), []byte(in.Definition))
		if problem := templateProblem(err); problem != nil {
			e := badRequest("the template is not correct: %v", err)
			e.Problem = problem
			return nil, e
		}
		return t, err
	}
	return nil, badRequest("neither template nor definition is given: expected one of them")
}

func (c *Coordinator) createBuild(w http.ResponseWriter, r *http.Request, who token.Claims) error {
	var in api.CreateBuild
	if err := decode(r, &in); err != nil {
		return err
	}
	if in.Transition == events.TransitionUnknown {
		return badRequest("the transition is missing or unknown: expected start, stop or delete")
	}
	if len(in.RequestID) > api.MaxRequestID {
		return badRequest("request_id has %d bytes, at most %d are allowed", len(in.RequestID), api.MaxRequestID)
	}
	rec, _, err := c.workspaces.resolve(r.Context(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	rec, created, err := c.workspaces.requestBuild(r.Context(), rec.ID, in, who.Subject)
	if err != nil {
		return err
	}
	if !created {
		return respond(w, http.StatusOK, rec.Build.Build)
	}
	c.audit(who, "build requested", rec, zap.Int64("build", rec.Build.Number), zap.Stringer("transition", in.Transition))
	w.Header().Set("Location", fmt.Sprintf("%s/workspaces/%s/builds/%d", apiPrefix, rec.ID, rec.Build.Number))
	return respond(w, http.StatusCreated, rec.Build.Build)
}

func (c *Coordinator) listBuilds(w http.ResponseWriter, r *http.Request, _ token.Claims) error {
	before, err := queryInt(r, "before", 0, maxNumber)
	if err != nil {
		return err
	}
	limit, err := queryInt(r, "limit", 1, maxPage)
	if err != nil {
		return err
	}
	if limit == 0 {
		limit = defaultPage
	}
	rec, _, err := c.workspaces.find(r.Context(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	out, err := c.workspaces.builds(r.Context(), rec, before, int(limit))
	if err != nil {
		return err
	}
	return respond(w, http.StatusOK, out)
}

func (c *Coordinator) getBuild(w http.ResponseWriter, r *http.Request, _ token.Claims) error {
	_, _, b, err := c.requestedBuild(r)
	if err != nil {
		return err
	}
	return respond(w, http.StatusOK, b)
}

// requestedBuild is the workspace, with its revision, and the build that the
// path names.
func (c *Coordinator) requestedBuild(r *http.Request) (rec record, revision uint64, b api.Build, err error) {
	if rec, revision, err = c.workspaces.find(r.Context(), r.PathValue("ref")); err != nil {
		return rec, revision, b, err
	}
	number, err := parseInt("build number", r.PathValue("number"), 1, maxNumber)
	if err != nil {
		return rec, revision, b, err
	}
	b, err = c.workspaces.build(r.Context(), rec, number)
	if errors.Is(err, errNoBuild) {
		err = &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("workspace %s has no build %d", rec.Name, number)}
	}
	return rec, revision, b, err
}

// createAgentToken makes a token for an agent that somebody else starts.
func (c *Coordinator) createAgentToken(w http.ResponseWriter, r *http.Request, who token.Claims) error {
	var in api.CreateAgentToken
	if err := decode(r, &in); err != nil {
		return err
	}
	rec, _, err := c.workspaces.resolve(r.Context(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	if rec.Template.Provisioner != template.ProvisionerNone {
		return &api.Error{
			Code:    api.CodeConflict,
			Message: fmt.Sprintf("the agent of workspace %s is started by this server", rec.Name),
			Hint:    "only the agent of a template with provisioner none takes a token by hand",
		}
	}
	if in.Agent != "" && in.Agent != agentName {
		return notFound("agent", in.Agent, []string{agentName})
	}
	build := rec.admits()
	if build == 0 {
		return notStarted(rec)
	}
	tok, err := c.issueAgentToken(rec.ID, build)
	if err != nil {
		return err
	}
	c.audit(who, "agent token issued", rec, zap.Int64("build", build), zap.Time("expires", tok.Expires))
	return respond(w, http.StatusCreated, tok)
}

func notStarted(rec record) *api.Error {
	return &api.Error{
		Code: api.CodeConflict, Message: fmt.Sprintf("workspace %s is not started", rec.Name), Hint: "start it first",
	}
}

// audit logs what somebody has had done.
func (c *Coordinator) audit(who token.Claims, what string, rec record, fields ...zap.Field) {
	c.log.Info(what, append([]zap.Field{
		zap.String("subject", who.Subject), zap.String("workspace", rec.Name), zap.String("workspace_id", rec.ID),
	}, fields...)...)
}

func (c *Coordinator) issueAgentToken(workspace string, build int64) (api.Token, error) {
	return c.tokens.Issue(token.Claims{
		Subject: "agent:" + workspace, Scope: api.ScopeAgent, Workspace: workspace, Build: build, Agent: agentName,
	}, c.cfg.AgentTokenLife)
}

// getManifest tells an agent what it needs to know of its workspace.
func (c *Coordinator) getManifest(w http.ResponseWriter, r *http.Request, who token.Claims) error {
	rec, err := c.admitted(r, who)
	if err != nil {
		return err
	}
	return respond(w, http.StatusOK, api.Manifest{
		WorkspaceID: rec.ID, WorkspaceName: rec.Name, Build: who.Build, AgentName: who.Agent, Template: rec.Template,
	})
}

func (c *Coordinator) renewAgentToken(w http.ResponseWriter, r *http.Request, who token.Claims) error {
	rec, err := c.admitted(r, who)
	if err != nil {
		return err
	}
	tok, err := c.issueAgentToken(rec.ID, who.Build)
	if err != nil {
		return err
	}
	return respond(w, http.StatusCreated, tok)
}

// admitted is the workspace of an agent, if its build is the one whose agents
// may speak.
func (c *Coordinator) admitted(r *http.Request, who token.Claims) (record, error) {
	rec, _, err := c.workspaces.get(r.Context(), who.Workspace)
	if e := (*api.Error)(nil); errors.As(err, &e) && e.Code == api.CodeNotFound {
		err = nil // erased: it admits nobody
	}
	if err == nil && (rec.admits() != who.Build || rec.agent(who.Agent) == nil) {
		err = &api.Error{Code: api.CodeForbidden, Message: fmt.Sprintf("build %d of the workspace is over: its agent is not wanted any more", who.Build)}
	}
	return rec, err
}

// now is the coordinator's time as it is stored.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
