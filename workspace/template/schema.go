package template

import (
	"time"

	"github.com/goccy/go-yaml/ast"
)

// What a template that does not say gets.
const (
	defaultStartTimeout    = Duration(2 * time.Minute)
	defaultStartupTimeout  = Duration(5 * time.Minute)
	defaultShutdownTimeout = Duration(30 * time.Second)
	defaultReadyTimeout    = Duration(10 * time.Second)
)

// template reads the whole template.
func (d *decoder) template(n ast.Node) *Template {
	t := &Template{Provisioner: ProvisionerProcess, Directory: ".", StartTimeout: defaultStartTimeout}
	present := d.mapping(n, "",
		field{"name", func(n ast.Node, what string) { t.Name = d.name(n, what) }},
		field{"description", func(n ast.Node, what string) { t.Description = d.line(n, what) }},
		field{"provisioner", func(n ast.Node, what string) {
			t.Provisioner = oneOf(d, n, what, ProvisionerProcess, ProvisionerNone)
		}},
		field{"directory", func(n ast.Node, what string) { t.Directory = d.directory(n, what) }},
		field{"env", func(n ast.Node, what string) { t.Env = d.env(n, what) }},
		field{"start", func(n ast.Node, what string) { t.Start = d.text(n, what, "a shell command") }},
		field{"start_timeout", func(n ast.Node, what string) { t.StartTimeout = d.duration(n, what) }},
		field{"ports", func(n ast.Node, what string) { t.Ports = d.ports(n, what) }},
		field{"startup_script", func(n ast.Node, what string) { t.StartupScript = d.startupScript(n, what) }},
		field{"shutdown_script", func(n ast.Node, what string) { t.ShutdownScript = d.shutdownScript(n, what) }},
		field{"services", func(n ast.Node, what string) { t.Services = d.services(n, what) }},
	)
	if present["name"] == nil {
		d.fail(n, "name is missing, expected name: NAME of a-z, 0-9 and inner hyphens")
	}
	if at := present["start"]; at != nil && t.Provisioner == ProvisionerNone {
		d.fail(at, "start has no effect with provisioner none, expected no start or provisioner process")
	}
	return t
}

func (d *decoder) ports(n ast.Node, what string) []Port {
	var ports []Port
	numbers, names := d.unique(), d.unique()
	d.list(n, what, "ports", func(n ast.Node, what string) {
		var p Port
		present := d.mapping(n, what,
			field{"port", func(n ast.Node, what string) {
				p.Port = d.port(n, what)
				numbers(n, what)
			}},
			field{"name", func(n ast.Node, what string) {
				p.Name = d.name(n, what)
				names(n, what)
			}},
			field{"description", func(n ast.Node, what string) { p.Description = d.line(n, what) }},
			field{"target", func(n ast.Node, what string) { p.Target = d.target(n, what) }},
		)
		if present["port"] == nil {
			d.fail(n, "%s.port is missing, expected a port number from 1 to 65535", what)
		}
		ports = append(ports, p)
	})
	return ports
}

func (d *decoder) target(n ast.Node, what string) Target {
	s, ok := stringValue(n)
	if !ok {
		d.failType(n, what, "unix:PATH or tcp:HOST:PORT")
		return Target{}
	}
	target, err := ParseTarget(s)
	if err != nil {
		d.fail(n, "%s is %s, %v", what, quote(s), err)
	}
	return target
}

func (d *decoder) startupScript(n ast.Node, what string) *StartupScript {
	s := &StartupScript{Blocking: true, Timeout: defaultStartupTimeout}
	present := d.mapping(n, what,
		field{"run", func(n ast.Node, what string) { s.Run = d.text(n, what, "a shell script") }},
		field{"blocking", func(n ast.Node, what string) { s.Blocking = d.bool(n, what) }},
		field{"timeout", func(n ast.Node, what string) { s.Timeout = d.duration(n, what) }},
	)
	d.requireRun(n, what, present)
	return s
}

func (d *decoder) shutdownScript(n ast.Node, what string) *ShutdownScript {
	s := &ShutdownScript{Timeout: defaultShutdownTimeout}
	present := d.mapping(n, what,
		field{"run", func(n ast.Node, what string) { s.Run = d.text(n, what, "a shell script") }},
		field{"timeout", func(n ast.Node, what string) { s.Timeout = d.duration(n, what) }},
	)
	d.requireRun(n, what, present)
	return s
}

func (d *decoder) requireRun(n ast.Node, what string, present map[string]ast.Node) {
	if present["run"] == nil {
		d.fail(n, "%s.run is missing, expected a shell script", what)
	}
}

func (d *decoder) services(n ast.Node, what string) []Service {
	var services []Service
	names := d.unique()
	d.list(n, what, "services", func(n ast.Node, what string) {
		s := Service{Directory: ".", Restart: RestartAlways}
		present := d.mapping(n, what,
			field{"name", func(n ast.Node, what string) {
				s.Name = d.name(n, what)
				names(n, what)
			}},
			field{"command", func(n ast.Node, what string) { s.Command = d.command(n, what) }},
			field{"env", func(n ast.Node, what string) { s.Env = d.env(n, what) }},
			field{"directory", func(n ast.Node, what string) { s.Directory = d.directory(n, what) }},
			field{"restart", func(n ast.Node, what string) {
				s.Restart = oneOf(d, n, what, RestartAlways, RestartOnFailure, RestartNever)
			}},
			field{"ready", func(n ast.Node, what string) { s.Ready = d.ready(n, what) }},
		)
		if present["name"] == nil {
			d.fail(n, "%s.name is missing, expected a name of a-z, 0-9 and inner hyphens", what)
		}
		if present["command"] == nil {
			d.fail(n, "%s.command is missing, expected a shell command or a list of arguments", what)
		}
		services = append(services, s)
	})
	return services
}

func (d *decoder) command(n ast.Node, what string) Command {
	if _, isList := n.(*ast.SequenceNode); !isList {
		return Command{Shell: d.text(n, what, "a shell command or a list of arguments")}
	}
	var args []string
	d.list(n, what, "arguments", func(n ast.Node, what string) {
		if len(args) == 0 {
			args = append(args, d.text(n, what, "a program"))
			return
		}
		args = append(args, d.envValue(n, what))
	})
	if len(args) == 0 {
		d.fail(n, "%s is an empty list, expected a program and its arguments", what)
	}
	return Command{Args: args}
}

func (d *decoder) ready(n ast.Node, what string) *Ready {
	r := &Ready{Timeout: defaultReadyTimeout}
	present := d.mapping(n, what,
		field{"port", func(n ast.Node, what string) { r.Port = d.port(n, what) }},
		field{"timeout", func(n ast.Node, what string) { r.Timeout = d.duration(n, what) }},
	)
	if present["port"] == nil {
		d.fail(n, "%s.port is missing, expected a port number from 1 to 65535", what)
	}
	return r
}

// unique returns a check that refuses a scalar that it has seen before.
func (d *decoder) unique() func(n ast.Node, what string) {
	type place struct {
		what string
		line int
	}
	seen := make(map[string]place)
	return func(n ast.Node, what string) {
		value := scalar(n)
		if first, twice := seen[value]; twice {
			d.fail(n, "%s is %s, which %s in line %d is already, expected another", what, show(n), first.what, first.line)
			return
		}
		seen[value] = place{what, n.GetToken().Position.Line}
	}
}
