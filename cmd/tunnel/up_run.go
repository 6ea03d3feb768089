package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tunneler/tunneler/app/forward"
	"github.com/tunneler/tunneler/fsm"
	"github.com/tunneler/tunneler/workspace/api"
)

// upRun is one run of `up`: a tunneler, the command beside it, and the signals
// that end them.
type upRun struct {
	p         *program
	session   *session
	workspace api.Workspace
	keep      bool
	command   []string
	signals   <-chan os.Signal
	began     time.Time
	asked     bool        // a first Ctrl-C
	forced    atomic.Bool // a second one
	bounds    atomic.Pointer[[]forward.Bound]
}

// run brings the tunnel up and stays until it is down.
func (r *upRun) run(ctx context.Context, cfg fsm.Config, specs []forward.Spec) error {
	ready := make(chan struct{})
	show := &progress{
		p: r.p, workspace: r.workspace.Name, began: r.began, entered: time.Now(), json: r.p.json,
		ready: func() { close(ready) },
	}
	t := fsm.New(&tunnelClient{
		api: r.session.Client, workspace: r.workspace.ID, forwards: specs, log: cfg.Logger,
		bound:   func(b []forward.Bound) { r.bounds.Store(&b) },
		problem: r.problem,
	}, cfg)
	t.Observe(show.observe)
	if r.session.dir != "" {
		defer r.inherit(ctx)()
	}
	go func() { _ = t.Run(ctx) }()

	var child *child
	var ended <-chan int // the command's exit code
	code, finished, asked := 0, false, false
	for {
		select {
		case <-ready:
			ready = nil
			r.announce()
			if len(r.command) == 0 {
				continue
			}
			c, err := startChild(r.p, r.command, r.environment())
			if err != nil {
				return errors.Join(err, shutdown(ctx, t))
			}
			child, ended = c, c.exited
		case code = <-ended:
			ended, finished = nil, true
			go func() { _ = t.Shutdown(context.Background()) }()
		case sig := <-r.signals:
			if r.forced.Load() {
				continue
			}
			if ended != nil && !asked {
				asked = true // a second signal is for us
				child.stop(sig)
				continue
			}
			r.stop(t)
		case <-t.Done():
			if ended != nil {
				// The tunnel has gone from under the command.
				child.kill()
				<-ended
			}
			return r.result(t.Err(), finished, code)
		}
	}
}

// inherit becomes the server of the data directory should the one that has it
// end. What it returns stops that.
func (r *upRun) inherit(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.p.inherit(ctx, r.session, r.keep)
	}()
	return func() {
		cancel()
		<-done
	}
}

// stop takes the tunnel down: in order at the first signal, at once at the
// second.
func (r *upRun) stop(t *fsm.Tunneler) {
	if !r.asked {
		r.asked = true
		go func() { _ = t.Shutdown(context.Background()) }()
		return
	}
	r.forced.Store(true)
	t.Abort()
}

// result is what `up` ends with.
func (r *upRun) result(err error, finished bool, code int) error {
	switch {
	case r.forced.Load():
		return &failure{err: errors.New("forced to stop by a second interrupt"), code: exitForced}
	case err != nil:
		return err
	case finished && code != 0:
		return commandExit(code)
	default:
		return nil
	}
}

func shutdown(ctx context.Context, t *fsm.Tunneler) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return t.Shutdown(ctx)
}

// announce prints where the tunnel can be reached: the result of `up`. With a
// command, standard output is the command's.
func (r *upRun) announce() {
	took := time.Since(r.began)
	r.p.ui.doneStage("tunnel to "+r.workspace.Name+" is up", took)
	for _, b := range *r.bounds.Load() {
		remote := b.Spec.Target()
		if b.Spec.RemoteHost == "" {
			remote = strconv.Itoa(int(b.Spec.RemotePort))
		}
		url := ""
		if b.Spec.RemoteHost == "" && r.isHTTP(b.Spec.RemotePort) {
			url = "http://" + b.LocalURLHost + "/"
		}
		switch {
		case r.p.json != nil:
			r.p.json.emit(jsonEvent{Event: "forward", Local: b.LocalURLHost, Remote: remote, URL: url})
		case len(r.command) > 0:
			r.p.ui.info("%s -> %s:%s", b.LocalURLHost, r.workspace.Name, remote)
		case url != "":
			fmt.Fprintf(r.p.out, "%s -> %s:%s\n", url, r.workspace.Name, remote)
		default:
			fmt.Fprintf(r.p.out, "%s -> %s:%s\n", b.LocalURLHost, r.workspace.Name, remote)
		}
	}
	if r.p.json != nil {
		r.p.json.emit(jsonEvent{Event: "ready", Workspace: r.workspace.Name, DurationMS: took.Milliseconds()})
	} else if len(r.command) == 0 {
		r.p.ui.info("press Ctrl-C to take the tunnel down")
	}
}

// isHTTP: all that the template knows of a port is its name.
func (r *upRun) isHTTP(port uint16) bool {
	for _, p := range r.workspace.Ports {
		if p.Port == int(port) {
			return p.Name == "web" || p.Name == "http"
		}
	}
	return false
}

// environment tells the command where the forwards are.
func (r *upRun) environment() []string {
	env := []string{"TUNNEL_WORKSPACE=" + r.workspace.Name}
	for _, b := range *r.bounds.Load() {
		if b.Spec.RemoteHost == "" {
			env = append(env, fmt.Sprintf("TUNNEL_FORWARD_%d=%s", b.Spec.RemotePort, b.LocalURLHost))
		}
	}
	return env
}

// problem is called when a forward does not work; the tunnel stays.
func (r *upRun) problem(pr forward.Problem) {
	r.p.ui.warn("%s -> %s: %s", pr.Forward.LocalURLHost, pr.Forward.Spec.Target(), pr.Sentence)
	if r.p.json != nil {
		r.p.json.emit(jsonEvent{Event: "warning", Local: pr.Forward.LocalURLHost, Remote: pr.Forward.Spec.Target(), Message: pr.Sentence})
	}
}

// closeSession ends the session and, with it, an embedded server and what it
// runs; at once when the user insists.
func (r *upRun) closeSession(err error) error {
	if r.session.own == nil {
		return errors.Join(err, r.session.Close())
	}
	if r.forced.Load() {
		r.session.own.hurry()
	} else {
		go func() {
			select {
			case <-r.signals:
				r.forced.Store(true)
				r.session.own.hurry()
			case <-r.session.own.closed:
			}
		}()
	}
	r.p.ui.begin("stopping the embedded server and what it runs")
	began := time.Now()
	e := r.session.Close()
	r.p.ui.endLive()
	if e == nil {
		r.p.ui.doneStage("embedded server stopped", time.Since(began))
	}
	if err == nil {
		err = e
	}
	if err == nil && r.forced.Load() {
		err = r.result(nil, false, 0)
	}
	return err
}
