package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunneler/tunneler/app/forward"
	"github.com/tunneler/tunneler/fsm"
	"github.com/tunneler/tunneler/workspace/api"
)

type upFlags struct {
	ports         []string
	template      string
	noAutostart   bool
	noWait        bool
	strictScripts bool
	onStop        string
	timeout       time.Duration
	keep          bool
}

func newUpCommand(p *program) *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up WORKSPACE [-- COMMAND [ARG...]]",
		Short: "Bring up a tunnel to a workspace and stay until Ctrl-C",
		Long: `Bring up a tunnel to a workspace: start it if need be, wait for its agent,
connect, and forward ports until Ctrl-C. With -- COMMAND, run the command once
the tunnel is up, then take the tunnel down and exit with the command's code.

A workspace that does not exist is created when a template has its name or
--template names one. Without -p the template's ports are forwarded.

A port is [BIND:]LOCAL:REMOTE, PORT for the same on both sides, or a range of
either; REMOTE may be HOST:PORT as the workspace sees it, and LOCAL may be 0 to
have a free port chosen and printed.`,
		Example: `  tunnel up demo
  tunnel up demo -p 18080:3000 -- curl -fsS http://127.0.0.1:18080/
  tunnel up demo -p 8000-8005 -p 5432:db.internal:5432`,
		Args: func(cmd *cobra.Command, args []string) error {
			n := len(args)
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				if n == dash {
					return errors.New("no command after --")
				}
				n = dash
			}
			if n != 1 {
				return fmt.Errorf("expected one workspace, got %d", n)
			}
			return nil
		},
		ValidArgsFunction: p.completeWorkspaces,
		RunE:              func(cmd *cobra.Command, args []string) error { return p.up(cmd.Context(), f, args[0], args[1:]) },
	}
	fl := cmd.Flags()
	fl.StringArrayVarP(&f.ports, "port", "p", nil, "port to forward, may be repeated")
	fl.StringVarP(&f.template, "template", "t", "", "template to create the workspace from if it does not exist: a name or a file")
	fl.BoolVar(&f.noAutostart, "no-autostart", false, "never start the workspace")
	fl.BoolVar(&f.noWait, "no-wait", false, "connect while the startup script is still running")
	fl.BoolVar(&f.strictScripts, "strict-scripts", false, "give up when the startup script fails or times out")
	fl.StringVar(&f.onStop, "on-stop", "wait", "when the workspace is stopped or replaced: wait, exit or restart it")
	fl.DurationVar(&f.timeout, "timeout", 0, "give up when the tunnel is not up after this long (0: each stage has its own limit)")
	fl.BoolVar(&f.keep, "keep", false, "leave the workspace running when an embedded server ends")
	_ = cmd.RegisterFlagCompletionFunc("on-stop", cobra.FixedCompletions([]string{"wait", "exit", "restart"}, cobra.ShellCompDirectiveNoFileComp))
	outputFlag(p, cmd)
	return cmd
}

// check turns the flags into a configuration, before anything is touched.
func (f *upFlags) check() (fsm.Config, []forward.Spec, error) {
	cfg := fsm.Config{
		NoAutostart: f.noAutostart, NoWaitForScripts: f.noWait, StrictScripts: f.strictScripts,
		Timeout: f.timeout, MaxAttempts: 10,
	}
	var err error
	if cfg.OnStop, err = fsm.ParseOnStop(f.onStop); err != nil {
		return cfg, nil, usagef("--on-stop: %s", err)
	}
	if f.noWait && f.strictScripts {
		return cfg, nil, usagef("--no-wait and --strict-scripts exclude each other")
	}
	if f.timeout < 0 {
		return cfg, nil, usagef("--timeout must not be negative")
	}
	specs, err := forward.ParseSpecs(f.ports)
	if err != nil {
		return cfg, nil, &failure{err: err, code: exitUsage}
	}
	return cfg, specs, nil
}

func (p *program) up(ctx context.Context, f upFlags, name string, command []string) (err error) {
	asJSON, err := p.wantJSON()
	if err != nil {
		return err
	}
	if asJSON {
		p.json = newJSONEvents(p.out)
		p.ui.quiet = true
	}
	cfg, specs, err := f.check()
	if err != nil {
		return err
	}
	if err := tryPorts(ctx, specs); err != nil {
		return err
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, stopSignals...)
	defer signal.Stop(signals)
	// A reader of our output that goes away must not end us in the middle: a
	// write to it then fails, instead of killing us.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)

	began := time.Now()
	s, w, err := p.openWorkspace(ctx, f, name, signals)
	if errors.Is(err, errInterrupted) {
		return nil // stopped by the user
	}
	if err != nil {
		return err
	}
	run := &upRun{p: p, session: s, workspace: w, keep: f.keep, command: command, signals: signals, began: began}
	defer func() { err = run.closeSession(err) }()
	if len(f.ports) == 0 {
		specs = portsOf(w)
	}
	cfg.Logger = p.logger(p.logLevel())
	return run.run(ctx, cfg, specs)
}

// openWorkspace finds or makes the coordinator and the workspace. A signal
// ends it; what was begun is then taken back.
func (p *program) openWorkspace(ctx context.Context, f upFlags, name string, signals <-chan os.Signal) (*session, api.Workspace, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	caused, cause := context.WithCancelCause(ctx)
	defer cause(nil)
	go func() {
		select {
		case <-signals:
			cause(errInterrupted)
		case <-stop:
		}
	}()
	s, err := p.openSession(caused, f.keep)
	if err != nil {
		return nil, api.Workspace{}, interruptedOr(caused, err)
	}
	w, err := p.findWorkspace(caused, s, name, f.template)
	if err = interruptedOr(caused, err); err != nil {
		return nil, w, errors.Join(err, s.Close())
	}
	return s, w, nil
}

// errInterrupted: the user has stopped `up` before there was a tunnel.
var errInterrupted = errors.New("interrupted before the tunnel was begun")

// interruptedOr is errInterrupted if that is why ctx has ended, else err.
func interruptedOr(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errInterrupted) {
		return errInterrupted
	}
	return err
}

// findWorkspace gives the workspace, which it creates if it is to be created.
func (p *program) findWorkspace(ctx context.Context, s *session, name, from string) (api.Workspace, error) {
	w, err := s.Workspace(ctx, name)
	if !notFound(err) {
		return w, err
	}
	if from == "" {
		if _, e := s.Template(ctx, name); e != nil {
			return w, withHint(err, "create it with `tunnel up "+name+" --template TEMPLATE`; `tunnel templates list` lists them")
		}
		from = name
	}
	req, e := createRequest(name, from)
	if e != nil {
		return w, e
	}
	if w, err = s.CreateWorkspace(ctx, req); err == nil {
		p.ui.info("created workspace %s from template %s", w.Name, w.Template)
	}
	return w, err
}

func notFound(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code == api.CodeNotFound
}

// tryPorts finds out at once, before a workspace is started for nothing,
// whether the local ports can be had.
func tryPorts(ctx context.Context, specs []forward.Spec) error {
	if len(specs) == 0 {
		return nil
	}
	app, err := forward.Start(ctx, forward.Options{Forwards: specs})
	if err != nil {
		return err
	}
	app.Abort()
	return app.Close()
}

// portsOf forwards what the template says is there: the same port if it is
// free, else one that is chosen.
func portsOf(w api.Workspace) []forward.Spec {
	var specs []forward.Spec
	for _, port := range w.Ports {
		s := forward.Spec{Local: uint16(port.Port), RemotePort: uint16(port.Port)}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(s.Local))))
		if err != nil {
			s.Local = 0
		} else {
			l.Close()
		}
		specs = append(specs, s)
	}
	return specs
}
