// Package template is the description of a workspace that its author writes: a YAML file that says how the
// workspace is started, which services and scripts run in it and which ports they serve.
//
// It parses, checks and hashes templates and knows the built-in ones. It must not know how a process is started
// (package provision), how an agent runs scripts (package agent) or where templates are stored (package
// coordinator).
//
// Relative paths in a template never leave the workspace: `directory` is relative to the workspace's own
// directory, a service's `directory` is relative to that, and the path of a unix target is relative to the
// workspace's own directory ($TUNNELER_WORKSPACE_DIR).
package template

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// A Template is one parsed and checked template with every default filled in. Its JSON form is what the
// coordinator stores and sends to the agent; it is itself a template that [Parse] accepts.
type Template struct {
	// Name is what the template is called: a-z, 0-9 and inner hyphens, at most 63 bytes.
	Name string `json:"name"`
	// Description is one line for people.
	Description string `json:"description,omitempty"`
	// Provisioner says who starts the workspace's agent.
	Provisioner Provisioner `json:"provisioner"`
	// Directory is the working directory of the start command, the scripts and the services. A relative one lies
	// inside the workspace's own directory; "." is that directory itself.
	Directory string `json:"directory"`
	// Env is set for the start command, the scripts and the services.
	Env map[string]string `json:"env,omitempty"`
	// Start is a shell command that the process provisioner runs in place of the agent, or empty. It must end by
	// running the agent: exec "$TUNNEL_BIN" agent.
	Start string `json:"start,omitempty"`
	// StartTimeout is how long a start build may take until the agent says hello.
	StartTimeout Duration `json:"start_timeout"`
	// Ports are the workspace's declared ports.
	Ports []Port `json:"ports,omitempty"`
	// StartupScript is run by the agent when it starts; nil if there is none.
	StartupScript *StartupScript `json:"startup_script,omitempty"`
	// ShutdownScript is run by the agent when it is told to stop; nil if there is none.
	ShutdownScript *ShutdownScript `json:"shutdown_script,omitempty"`
	// Services are kept running by the agent.
	Services []Service `json:"services,omitempty"`
}

// Provisioner says who starts a workspace's agent.
type Provisioner string

const (
	// ProvisionerProcess starts the agent as a process of the server's machine. It is the default.
	ProvisionerProcess Provisioner = "process"
	// ProvisionerNone leaves it to someone else, usually on another host.
	ProvisionerNone Provisioner = "none"
)

// A Port is one port of the workspace, as the users of a tunnel address it.
type Port struct {
	// Port is the workspace's port number, 1 to 65535. It is unique within the template.
	Port int `json:"port"`
	// Name is what the port is called: empty, or unique within the template.
	Name string `json:"name,omitempty"`
	// Description is one line for people.
	Description string `json:"description,omitempty"`
	// Target is what the agent dials for this port. The zero Target means the same port of localhost. Any other
	// target keeps workspaces that share a machine, and declare the same port, out of each other's way.
	Target Target `json:"target,omitzero"`
}

// A StartupScript prepares the workspace each time its agent starts.
type StartupScript struct {
	// Run is the script, run by sh.
	Run string `json:"run"`
	// Blocking tells whether the agent is ready only after the script has ended; true is the default.
	Blocking bool `json:"blocking"`
	// Timeout is how long the script may run.
	Timeout Duration `json:"timeout"`
}

// A ShutdownScript runs before the workspace's services are stopped.
type ShutdownScript struct {
	// Run is the script, run by sh.
	Run string `json:"run"`
	// Timeout is how long the script may run.
	Timeout Duration `json:"timeout"`
}

// A Service is a command that the agent keeps running.
type Service struct {
	// Name is unique within the template: a-z, 0-9 and inner hyphens, at most 63 bytes.
	Name string `json:"name"`
	// Command is what runs.
	Command Command `json:"command"`
	// Env is added to the template's Env and wins over it.
	Env map[string]string `json:"env,omitempty"`
	// Directory is the working directory; a relative one lies inside the template's.
	Directory string `json:"directory"`
	// Restart says what happens when the command ends by itself.
	Restart Restart `json:"restart"`
	// Ready says how to find out that the service serves; nil means that a started service counts as ready.
	Ready *Ready `json:"ready,omitempty"`
}

// Restart says what happens when a service's command ends by itself.
type Restart string

const (
	// RestartAlways starts it again whatever its exit status. It is the default.
	RestartAlways Restart = "always"
	// RestartOnFailure starts it again unless its exit status was 0.
	RestartOnFailure Restart = "on-failure"
	// RestartNever leaves it ended.
	RestartNever Restart = "never"
)

// Ready is the readiness check of a service.
type Ready struct {
	// Port is the workspace port that must accept a connection, through its Target if it has one.
	Port int `json:"port"`
	// Timeout is how long the service may take until it does.
	Timeout Duration `json:"timeout"`
}

// Target finds what the agent dials for a workspace port. It is false for a port that the template does not
// declare or declares without a target of its own: those are the same port of localhost.
func (t *Template) Target(port int) (Target, bool) {
	for _, p := range t.Ports {
		if p.Port == port && p.Target != (Target{}) {
			return p.Target, true
		}
	}
	return Target{}, false
}

// Hash is the lower-case hexadecimal SHA-256 of the template's JSON form: equal for templates that mean the same,
// however they were written.
func (t *Template) Hash() string {
	data, err := json.Marshal(t)
	if err != nil {
		// A template holds strings, numbers and maps of strings only.
		panic(fmt.Sprintf("template: cannot be encoded: %v", err))
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Duration is a time.Duration whose text form is Go's ("1m30s"), in YAML and JSON alike.
type Duration time.Duration

// Std is d as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}
