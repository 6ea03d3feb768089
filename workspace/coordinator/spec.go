package coordinator

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/tunneler/tunneler/workspace/provision"
	"github.com/tunneler/tunneler/workspace/template"
)

// spec says how to run a build of a workspace, and leaves its agent a token.
func (c *Coordinator) spec(rec *record, number int64) (provision.Spec, error) {
	s := provision.Spec{
		WorkspaceID: rec.ID, WorkspaceName: rec.Name, Build: number, Dir: c.dir(rec.ID), Template: rec.Template,
		Agent: provision.AgentSpec{Argv: c.cfg.Agent.Argv, Env: slices.Clone(c.cfg.Agent.Env)},
	}
	if rec.Template.Provisioner == template.ProvisionerNone {
		return s, nil
	}
	tok, err := c.issueAgentToken(rec.ID, number)
	if err != nil {
		return s, err
	}
	path := filepath.Join(s.Dir, ".tunneler", "agent.token")
	if err := writeSecret(path, []byte(tok.Token+"\n")); err != nil {
		return s, fmt.Errorf("leave the agent its token: %w", err)
	}
	s.Agent.Env = append(s.Agent.Env, AgentTokenFileEnv+"="+path)
	if c.cfg.PublicURL != nil {
		s.Agent.Env = append(s.Agent.Env, "TUNNEL_SERVER="+c.cfg.PublicURL())
	}
	return s, nil
}

// writeSecret writes a file that only its user can read, whole or not at all,
// in a directory that is made if need be.
func writeSecret(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".token.*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
