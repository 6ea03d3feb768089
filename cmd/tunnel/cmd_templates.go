package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tunneler/tunneler/workspace/template"
)

func newTemplatesCommand(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "templates",
		Short: "List, show and check templates",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTemplatesListCommand(p), newTemplatesShowCommand(p), newTemplatesCheckCommand(p))
	return cmd
}

func newTemplatesListCommand(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the server's templates",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := p.wantJSON()
			if err != nil {
				return err
			}
			return p.inSession(cmd, func(ctx context.Context, s *session) error {
				list, err := s.Templates(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return p.printJSON(list)
				}
				tw := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(tw, "NAME\tPROVISIONER\tDESCRIPTION")
				for _, t := range list {
					fmt.Fprintf(tw, "%s\t%s\t%s\n", t.Name, t.Provisioner, t.Description)
				}
				return tw.Flush()
			})
		},
	}
	outputFlag(p, cmd)
	return cmd
}

func newTemplatesShowCommand(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show TEMPLATE",
		Short: "Print the text of one of the server's templates",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, err := p.wantJSON()
			if err != nil {
				return err
			}
			return p.inSession(cmd, func(ctx context.Context, s *session) error {
				t, err := s.Template(ctx, args[0])
				if err != nil {
					return err
				}
				if asJSON {
					return p.printJSON(t)
				}
				_, err = io.WriteString(p.out, t.Definition)
				return err
			})
		},
	}
	outputFlag(p, cmd)
	return cmd
}

func newTemplatesCheckCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE...",
		Short: "Check template files without a server",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var errs []error
			for _, path := range args {
				t, _, err := readTemplate(path)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintf(p.out, "%s: template %s is correct\n", path, t.Name)
			}
			return errors.Join(errs...)
		},
	}
}

// maxTemplate is more than a template may have, so that its own check says so.
const maxTemplate = 1 << 20

// readTemplate reads and parses a template file.
func readTemplate(path string) (*template.Template, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", &failure{err: fmt.Errorf("cannot read the template: %w", err), code: exitUsage}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxTemplate))
	if err != nil {
		return nil, "", &failure{err: fmt.Errorf("cannot read the template %s: %w", path, err), code: exitUsage}
	}
	t, err := template.Parse(path, text)
	return t, string(text), err
}
