package provision

import (
	"slices"
	"strconv"
	"strings"
)

// The variables that the provisioner sets. The first four mark every process of a workspace.
const (
	envWorkspaceID   = "TUNNELER_WORKSPACE_ID"
	envWorkspaceName = "TUNNELER_WORKSPACE_NAME"
	envBuild         = "TUNNELER_WORKSPACE_BUILD"
	envWorkspaceDir  = "TUNNELER_WORKSPACE_DIR"
	// envOwner tells the workspaces of several servers on one machine apart.
	envOwner = "TUNNELER_OWNER"
	// envBin is the program that the start command and the services may run.
	envBin = "TUNNEL_BIN"
)

// inherited are the variables that a workspace gets from the server's environment. Nothing else of it leaks.
var inherited = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
}

// environment is the environment of a workspace's process, sorted. Later parts win: the inherited variables, the
// template's, the agent's, the provisioner's own.
func environment(server []string, spec Spec, owner string) []string {
	env := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, pair := range server {
		if key, value, ok := strings.Cut(pair, "="); ok && slices.Contains(inherited, key) {
			env[key] = value
		}
	}
	for key, value := range spec.Template.Env {
		env[key] = value
	}
	for _, pair := range spec.Agent.Env {
		if key, value, ok := strings.Cut(pair, "="); ok {
			env[key] = value
		}
	}
	env[envBin] = spec.Agent.Argv[0]
	env[envWorkspaceID] = spec.WorkspaceID
	env[envWorkspaceName] = spec.WorkspaceName
	env[envWorkspaceDir] = spec.Dir
	env[envBuild] = strconv.FormatInt(spec.Build, 10)
	env[envOwner] = owner
	pairs := make([]string, 0, len(env))
	for key, value := range env {
		pairs = append(pairs, key+"="+value)
	}
	slices.Sort(pairs)
	return pairs
}
