package provision

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/tunneler/tunneler/workspace/template"
)

// privateDir is the provisioner's own directory in a workspace's.
const privateDir = ".tunneler"

// shell runs start commands.
const shell = "/bin/sh"

var workspaceIDRE = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// check reports the first thing that keeps a spec from being run.
func (s Spec) check() error {
	switch {
	case !workspaceIDRE.MatchString(s.WorkspaceID):
		return &SpecError{"workspace ID", fmt.Sprintf("is %q, expected 1 to 64 of A-Z, a-z, 0-9, - and _", s.WorkspaceID)}
	case s.Build < 1:
		return &SpecError{"build", fmt.Sprintf("is %d, expected a number from 1", s.Build)}
	case !filepath.IsAbs(s.Dir):
		return &SpecError{"directory", fmt.Sprintf("is %q, expected an absolute path", s.Dir)}
	case len(s.Agent.Argv) == 0 || !filepath.IsAbs(s.Agent.Argv[0]):
		return &SpecError{"agent program", fmt.Sprintf("is %q, expected an absolute path", slices.Concat(s.Agent.Argv, []string{""})[0])}
	case s.Template.Provisioner == template.ProvisionerNone:
		return &SpecError{"template", "leaves the agent to someone else, expected provisioner process"}
	}
	return nil
}

// argv is the program and arguments to run.
func (s Spec) argv() []string {
	if s.Template.Start != "" {
		return []string{shell, "-c", s.Template.Start}
	}
	return s.Agent.Argv
}

// prepare makes the directories that the spec's process needs and returns its working directory.
func (s Spec) prepare() (string, error) {
	if err := os.MkdirAll(filepath.Join(s.Dir, privateDir), 0o700); err != nil {
		return "", err
	}
	dir := s.Template.Directory
	if filepath.IsAbs(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return "", &SpecError{"template directory", fmt.Sprintf("cannot be used: %v", err)}
		}
		if !info.IsDir() {
			return "", &SpecError{"template directory", dir + " is not a directory"}
		}
		return dir, nil
	}
	dir = filepath.Join(s.Dir, dir)
	if dir != filepath.Clean(s.Dir) && !strings.HasPrefix(dir, filepath.Clean(s.Dir)+string(filepath.Separator)) {
		return "", &SpecError{"template directory", dir + " is outside the workspace's directory"}
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// logPath is the file that takes the output of the processes of a workspace in dir.
func logPath(dir string) string { return filepath.Join(dir, privateDir, "output.log") }
