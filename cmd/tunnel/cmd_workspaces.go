package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/client"
)

func newWorkspacesCommand(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "workspaces",
		Aliases: []string{"workspace", "ws"},
		Short:   "Create, list, start, stop and delete workspaces",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newWorkspacesCreateCommand(p), newWorkspacesListCommand(p), newWorkspacesShowCommand(p),
		newTransitionCommand(p, "start", "Start a workspace and wait until it runs", events.TransitionStart),
		newTransitionCommand(p, "stop", "Stop a workspace and wait until it is stopped", events.TransitionStop),
		newTransitionCommand(p, "delete", "Delete a workspace with everything in its directory", events.TransitionDelete),
		newWorkspacesLogsCommand(p), newWorkspacesWatchCommand(p), newAgentTokenCommand(p),
	)
	return cmd
}

// inSession runs f with a session; what an embedded server started goes on.
func (p *program) inSession(cmd *cobra.Command, f func(context.Context, *session) error) (err error) {
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	s, err := p.openSession(ctx, true)
	if err != nil {
		return err
	}
	defer func() {
		if e := s.Close(); err == nil {
			err = e
		}
	}()
	return f(ctx, s)
}

// printJSON writes a result for programs.
func (p *program) printJSON(v any) error {
	enc := json.NewEncoder(p.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func newWorkspacesCreateCommand(p *program) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Create a workspace from a template",
		Long:    "Create a workspace from one of the server's templates, or from a template file.\nIt is not started: see `tunnel workspaces start` and `tunnel up`.",
		Example: "  tunnel workspaces create demo --template demo\n  tunnel workspaces create web --template ./web.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, err := p.wantJSON()
			if err != nil {
				return err
			}
			req, err := createRequest(args[0], from)
			if err != nil {
				return err
			}
			return p.inSession(cmd, func(ctx context.Context, s *session) error {
				w, err := s.CreateWorkspace(ctx, req)
				if err != nil {
					return err
				}
				if asJSON {
					return p.printJSON(w)
				}
				_, err = fmt.Fprintf(p.out, "created workspace %s from template %s\n", w.Name, w.Template)
				return err
			})
		},
	}
	cmd.Flags().StringVarP(&from, "template", "t", "demo", "name of a template of the server, or path of a template file")
	outputFlag(p, cmd)
	return cmd
}

// createRequest makes the request for a workspace from a template's name or,
// if it looks like a path, its file.
func createRequest(name, from string) (api.CreateWorkspace, error) {
	if err := api.CheckName(name); err != nil {
		return api.CreateWorkspace{}, usagef("%s", err)
	}
	req := api.CreateWorkspace{Name: name, Template: from}
	if !isPath(from) {
		return req, nil
	}
	t, text, err := readTemplate(from)
	if err != nil {
		return req, err
	}
	_ = t // parsed here for its errors, which then name the file
	req.Template, req.Definition = "", text
	return req, nil
}

func isPath(s string) bool { return strings.ContainsAny(s, `/\.`) }

func newWorkspacesListCommand(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the workspaces",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := p.wantJSON()
			if err != nil {
				return err
			}
			return p.inSession(cmd, func(ctx context.Context, s *session) error {
				list, err := s.Workspaces(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return p.printJSON(list)
				}
				if len(list) == 0 {
					p.ui.info("no workspaces yet: `tunnel up demo` makes one")
					return nil
				}
				tw := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(tw, "NAME\tTEMPLATE\tSTATUS\tAGENT\tBUILD\tPORTS")
				for _, w := range list {
					fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\t%s\n", w.Name, w.Template, buildStatus(w.Build), agentStatus(w.Agents), w.Build.Number, ports(w))
				}
				return tw.Flush()
			})
		},
	}
	outputFlag(p, cmd)
	return cmd
}

// buildStatus says in a word what a build means for its workspace.
func buildStatus(b api.Build) string {
	if b.Status == events.JobSucceeded {
		switch b.Transition {
		case events.TransitionStart:
			return "started"
		case events.TransitionStop:
			return "stopped"
		case events.TransitionDelete:
			return "deleted"
		case events.TransitionUnknown:
		}
	}
	return b.Transition.String() + " " + b.Status.String()
}

func agentStatus(agents []api.Agent) string {
	var out []string
	for _, a := range agents {
		s := a.Lifecycle.String()
		if a.Status != events.AgentConnected {
			s = a.Status.String()
		}
		if len(agents) > 1 {
			s = a.Name + " " + s
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, ", ")
}

func ports(w api.Workspace) string {
	var out []string
	for _, p := range w.Ports {
		out = append(out, fmt.Sprint(p.Port))
	}
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, ",")
}

func newWorkspacesShowCommand(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "show WORKSPACE",
		Short:             "Show one workspace",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeWorkspaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, err := p.wantJSON()
			if err != nil {
				return err
			}
			return p.inSession(cmd, func(ctx context.Context, s *session) error {
				w, err := s.Workspace(ctx, args[0])
				if err != nil {
					return err
				}
				if asJSON {
					return p.printJSON(w)
				}
				return p.showWorkspace(w)
			})
		},
	}
	outputFlag(p, cmd)
	return cmd
}

func (p *program) showWorkspace(w api.Workspace) error {
	tw := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "name\t%s\nid\t%s\ntemplate\t%s\ncreated\t%s\n", w.Name, w.ID, w.Template, w.CreatedAt.Local().Format(time.DateTime))
	fmt.Fprintf(tw, "status\t%s\nbuild\t%d\n", buildStatus(w.Build), w.Build.Number)
	if w.Build.Error != "" {
		fmt.Fprintf(tw, "error\t%s\n", printable(w.Build.Error))
	}
	for _, a := range w.Agents {
		fmt.Fprintf(tw, "agent %s\t%s, %s", a.Name, a.Status, a.Lifecycle)
		if a.Error != "" {
			fmt.Fprintf(tw, ": %s", printable(a.Error))
		}
		fmt.Fprintln(tw)
	}
	for _, port := range w.Ports {
		fmt.Fprintf(tw, "port %d\t%s\n", port.Port, strings.TrimSpace(port.Name+"  "+port.Description))
	}
	return tw.Flush()
}

// newTransitionCommand makes start, stop and delete, which differ in a word.
func newTransitionCommand(p *program, verb, short string, tr events.Transition) *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:               verb + " WORKSPACE",
		Short:             short,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeWorkspaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, err := p.wantJSON()
			if err != nil {
				return err
			}
			return p.inSession(cmd, func(ctx context.Context, s *session) error {
				b, err := p.transition(ctx, s, args[0], tr, noWait && s.own == nil)
				if err != nil {
					return err
				}
				if asJSON {
					return p.printJSON(b)
				}
				_, err = fmt.Fprintf(p.out, "workspace %s: %s\n", args[0], buildStatus(b))
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it is done (an embedded server always waits)")
	outputFlag(p, cmd)
	return cmd
}

// transition asks for a build, or joins the same one under way, and follows
// its log to its end.
func (p *program) transition(ctx context.Context, s *session, name string, tr events.Transition, noWait bool) (api.Build, error) {
	began := time.Now()
	w, err := s.Workspace(ctx, name)
	if err != nil {
		return api.Build{}, err
	}
	b, err := s.CreateBuild(ctx, w.ID, api.CreateBuild{Transition: tr})
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.CodeBuildActive && e.Build != nil && e.Build.Transition == tr {
		b, err = *e.Build, nil
	}
	if err != nil || noWait {
		return b, err
	}
	b, err = p.followBuild(ctx, s, w, b)
	if err != nil {
		return b, err
	}
	if b.Status != events.JobSucceeded {
		return b, &failure{err: fmt.Errorf("%s of workspace %s %s: %s", tr, w.Name, b.Status, b.Error), code: exitNotUp}
	}
	if s.own != nil {
		if err := s.own.kept.set(w.ID, tr == events.TransitionStart); err != nil {
			return b, err
		}
	}
	if tr == events.TransitionStart {
		if err := p.awaitAgent(ctx, s, w, b); err != nil {
			return b, err
		}
	}
	p.ui.doneStage(fmt.Sprintf("workspace %s: %s", w.Name, buildStatus(b)), time.Since(began))
	return b, nil
}

// followBuild prints the log of a build to its end, and says how it ended.
func (p *program) followBuild(ctx context.Context, s *session, w api.Workspace, b api.Build) (api.Build, error) {
	err := s.FollowBuildLogs(ctx, w.ID, b.Number, 0, func(l events.Log) error {
		p.ui.log(l.Source, l.Output)
		return nil
	})
	ended := b
	if err == nil {
		ended, err = s.Build(ctx, w.ID, b.Number)
	}
	if b.Transition == events.TransitionDelete && notFound(err) {
		// What is deleted is not there to be asked any more.
		b.Status = events.JobSucceeded
		return b, nil
	}
	return ended, err
}

// awaitAgent waits until the startup script of a workspace has ended, well or
// not, and prints its output. Nobody's workspace is awaited whose agent
// somebody else starts.
func (p *program) awaitAgent(ctx context.Context, s *session, w api.Workspace, b api.Build) error {
	if now, err := s.Workspace(ctx, w.ID); err != nil || len(now.Agents) == 0 || now.Agents[0].ID == "" {
		return err
	}
	ctx, settled := context.WithCancel(ctx)
	defer settled()
	over := false
	err := s.Watch(ctx, w.ID, client.WatchOptions{Emit: func(ev events.Event) {
		switch ev := ev.(type) {
		case events.AgentLog:
			p.ui.log(ev.Source, ev.Output)
		case events.BuildUpdate:
			over = over || ev.Number != b.Number
		case events.AgentUpdate:
			switch ev.Lifecycle {
			case events.LifecycleStartError, events.LifecycleStartTimeout:
				p.ui.warn("the startup script of %s did not succeed (%s)", w.Name, ev.Lifecycle)
				over = true
			case events.LifecycleUnknown, events.LifecycleCreated, events.LifecycleStarting:
			default:
				over = true
			}
		}
		if over {
			settled()
		}
	}})
	if over {
		return nil
	}
	return err
}

func newAgentTokenCommand(p *program) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "agent-token WORKSPACE",
		Short: "Write a token for an agent that you start yourself",
		Long: `Write a token for the agent of a workspace whose template says "provisioner:
none": its agent is started by you, wherever the workspace is. Take the file
there and run:

  tunnel agent --server URL --token-file FILE`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeWorkspaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.inSession(cmd, func(ctx context.Context, s *session) error {
				t, err := s.AgentToken(ctx, args[0], api.CreateAgentToken{})
				if err != nil {
					return err
				}
				if file == "-" {
					_, err = fmt.Fprintln(p.out, t.Token)
					return err
				}
				if err := writeSecret(file, []byte(t.Token+"\n")); err != nil {
					return err
				}
				p.ui.info("wrote %s, good until %s", file, t.Expires.Local().Format(time.DateTime))
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&file, "file", "agent.token", "where to write it (- is standard output)")
	return cmd
}

// completeWorkspaces completes names for a shell, without starting a server.
func (p *program) completeWorkspaces(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	if len(args) > 0 {
		return nil, none
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
	defer cancel()
	var s *session
	if p.flags.server != "" || os.Getenv("TUNNEL_SERVER") != "" {
		s, _ = p.openSession(ctx, true)
	} else if dir, err := p.dataDir(); err == nil {
		s = joinServer(ctx, dir)
	}
	if s == nil {
		return nil, none
	}
	list, err := s.Workspaces(ctx)
	if err != nil {
		return nil, none
	}
	var names []string
	for _, w := range list {
		names = append(names, w.Name+"\t"+buildStatus(w.Build))
	}
	return names, none
}
