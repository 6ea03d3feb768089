package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/client"
)

func newWorkspacesLogsCommand(p *program) *cobra.Command {
	var (
		build  int64
		agent  bool
		follow bool
	)
	cmd := &cobra.Command{
		Use:               "logs WORKSPACE",
		Short:             "Print the log of a build, or of the agent",
		Long:              "Print the log of the newest build, of another build with --build, or with --agent\nthat of the agent: startup script, services and the agent itself.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: p.completeWorkspaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, err := p.wantJSON()
			if err != nil {
				return err
			}
			if agent && build != 0 {
				return usagef("--agent and --build exclude each other")
			}
			enc := json.NewEncoder(p.out)
			emit := func(l events.Log) error {
				if asJSON {
					return enc.Encode(l)
				}
				_, err := fmt.Fprintf(p.out, "%s  %-5s %s  %s\n", l.CreatedAt.Local().Format(time.TimeOnly), l.Level, l.Source, printable(l.Output))
				return err
			}
			return p.inSession(cmd, func(ctx context.Context, s *session) error {
				w, err := s.Workspace(ctx, args[0])
				if err != nil {
					return err
				}
				if build == 0 {
					build = w.Build.Number
				}
				switch {
				case !agent && build == 0:
					p.ui.info("workspace %s was never built", w.Name)
					return nil
				case !agent && follow:
					return s.FollowBuildLogs(ctx, w.ID, build, 0, emit)
				case !agent:
					return pages(func(after int64) ([]events.Log, error) {
						page, err := s.BuildLogs(ctx, w.ID, build, client.LogOptions{After: after})
						return page.Logs, err
					}, emit)
				case len(w.Agents) == 0:
					p.ui.info("workspace %s has no agent", w.Name)
					return nil
				case follow:
					return s.FollowAgentLogs(ctx, w.ID, w.Agents[0].Name, 0, emit)
				default:
					return pages(func(after int64) ([]events.Log, error) {
						page, err := s.AgentLogs(ctx, w.ID, w.Agents[0].Name, client.LogOptions{After: after})
						return page.Logs, err
					}, emit)
				}
			})
		},
	}
	f := cmd.Flags()
	f.Int64Var(&build, "build", 0, "number of the build (default: the newest)")
	f.BoolVar(&agent, "agent", false, "the agent's log instead of a build's")
	f.BoolVarP(&follow, "follow", "f", false, "go on until the build has ended, or for the agent until interrupted")
	outputFlag(p, cmd)
	return cmd
}

// pages reads a log page by page to its present end.
func pages(read func(after int64) ([]events.Log, error), emit func(events.Log) error) error {
	for after := int64(0); ; {
		logs, err := read(after)
		if err != nil || len(logs) == 0 {
			return err
		}
		for _, l := range logs {
			if err := emit(l); err != nil {
				return err
			}
			after = l.ID
		}
	}
}

func newWorkspacesWatchCommand(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "watch WORKSPACE",
		Short:             "Print what happens to a workspace until interrupted",
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
				err = s.Watch(ctx, w.ID, client.WatchOptions{Emit: func(ev events.Event) { p.printEvent(ev, asJSON) }})
				if ctx.Err() != nil {
					return nil // interrupted, as it is meant to be
				}
				return err
			})
		},
	}
	outputFlag(p, cmd)
	return cmd
}

// printEvent prints one event of a watch.
func (p *program) printEvent(ev events.Event, asJSON bool) {
	if asJSON {
		if m, ok := watchMessage(ev); ok {
			_ = json.NewEncoder(p.out).Encode(m)
		}
		return
	}
	now := time.Now().Format(time.TimeOnly)
	switch ev := ev.(type) {
	case events.BuildUpdate:
		fmt.Fprintf(p.out, "%s  build %d: %s %s", now, ev.Number, ev.Transition, ev.Status)
		if ev.Error != "" {
			fmt.Fprintf(p.out, ": %s", printable(ev.Error))
		}
		fmt.Fprintln(p.out)
	case events.AgentUpdate:
		fmt.Fprintf(p.out, "%s  agent %s: %s, %s\n", now, ev.Name, ev.Status, ev.Lifecycle)
	case events.BuildLog:
		fmt.Fprintf(p.out, "%s  build | %s\n", now, printable(ev.Output))
	case events.AgentLog:
		fmt.Fprintf(p.out, "%s  %s | %s\n", now, ev.Source, printable(ev.Output))
	case events.WatchUpdate:
		if ev.State != events.WatchUp {
			p.ui.info("watch: %s: %v", ev.State, ev.Err)
		}
	}
}

// watchMessage is the event as the watch's own message.
func watchMessage(ev events.Event) (events.WatchMessage, bool) {
	switch ev := ev.(type) {
	case events.BuildUpdate:
		return events.WatchMessage{BuildUpdate: &ev}, true
	case events.AgentUpdate:
		return events.WatchMessage{AgentUpdate: &ev}, true
	case events.BuildLog:
		return events.WatchMessage{BuildLog: &ev.Log}, true
	case events.AgentLog:
		return events.WatchMessage{AgentLog: &ev.Log}, true
	}
	return events.WatchMessage{}, false
}
