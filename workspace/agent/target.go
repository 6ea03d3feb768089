package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
)

const (
	// defaultDial and maxDial bound the dial of a target.
	defaultDial = 10 * time.Second
	maxDial     = 30 * time.Second
)

// targets connects the streams of tunnels to what is on the agent's side.
type targets struct {
	manifest api.Manifest
	dir      string
}

// dial connects to what a stream was opened for. The error is a *events.Reply
// with a sentence for the person at the other end.
func (t *targets) dial(ctx context.Context, h events.OpenHeader) (net.Conn, error) {
	limit := defaultDial
	if h.Deadline > 0 {
		limit = min(h.Deadline, maxDial)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if h.Network == events.NetworkUnix {
		path, err := t.socket(h.Target)
		if err != nil {
			return nil, &events.Reply{Code: events.ReplyDenied, Text: err.Error()}
		}
		return t.connect(ctx, "unix", path, "the socket "+h.Target)
	}
	host, portText, err := net.SplitHostPort(h.Target)
	if err != nil {
		return nil, &events.Reply{Code: events.ReplyBadRequest, Text: fmt.Sprintf("bad target %q: expected host:port", h.Target)}
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return nil, &events.Reply{Code: events.ReplyBadRequest, Text: fmt.Sprintf("bad port in target %q", h.Target)}
	}
	if !t.isWorkspace(host) {
		return t.connect(ctx, h.Network.String(), h.Target, h.Target)
	}
	what := fmt.Sprintf("port %d in workspace %s", port, t.manifest.WorkspaceName)
	if to, ok := t.manifest.Template.Target(int(port)); ok && h.Network == events.NetworkTCP {
		address := to.Address
		if to.Network == "unix" {
			address = t.inside(address)
		}
		return t.connect(ctx, to.Network, address, what)
	}
	// "localhost" is both loopbacks: many development servers have but one.
	return t.connect(ctx, h.Network.String(), net.JoinHostPort("localhost", portText), what)
}

// isWorkspace: the name means the workspace itself.
func (t *targets) isWorkspace(host string) bool {
	if host == "" || strings.EqualFold(host, "localhost") || host == t.manifest.WorkspaceName {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// inside resolves a path against the workspace's directory. A path below the
// working directory stays relative: a socket's path has about 100 bytes.
func (t *targets) inside(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	if wd, err := os.Getwd(); err == nil && wd == t.dir {
		return path
	}
	return filepath.Join(t.dir, path)
}

// socket allows Unix sockets inside the workspace's directory alone, links
// followed.
func (t *targets) socket(path string) (string, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(t.dir, path)
	}
	dir, err := filepath.EvalSymlinks(t.dir)
	if err != nil {
		return "", fmt.Errorf("the workspace's directory is not there")
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("there is no socket %s in the workspace", filepath.Base(path))
	}
	if rel, err := filepath.Rel(dir, real); err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("sockets outside the workspace's directory are not reachable")
	}
	return real, nil
}

func (t *targets) connect(ctx context.Context, network, address, what string) (net.Conn, error) {
	var d net.Dialer
	d.SetMultipathTCP(false)
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, explainDial(err, what)
	}
	return conn, nil
}

// explainDial turns the system's error into an answer for a person.
func explainDial(err error, what string) *events.Reply {
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return &events.Reply{Code: events.ReplyRefused, Text: "nothing listens on " + what}
	case errors.As(err, &dns):
		return &events.Reply{Code: events.ReplyUnreachable, Text: fmt.Sprintf("the workspace cannot resolve %s", dns.Name)}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return &events.Reply{Code: events.ReplyTimeout, Text: "no answer from " + what}
	case errors.Is(err, os.ErrPermission):
		return &events.Reply{Code: events.ReplyDenied, Text: "the agent may not connect to " + what}
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return &events.Reply{Code: events.ReplyTooMany, Text: "the agent has too many open files"}
	default:
		return &events.Reply{Code: events.ReplyUnreachable, Text: fmt.Sprintf("the workspace cannot reach %s: %s", what, rootCause(err))}
	}
}

// rootCause is the last error of the chain: what the system itself said.
func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
