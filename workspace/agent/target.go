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
	// outsideSockets lets tunnels reach Unix sockets outside of dir.
	outsideSockets bool
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
			return nil, err
		}
		return t.connectUnix(ctx, path, "the socket "+h.Target)
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
		if to.Network == "unix" {
			return t.connectUnix(ctx, t.inside(to.Address), what)
		}
		return t.connect(ctx, to.Network, to.Address, what)
	}
	return t.connectLoopback(ctx, h.Network.String(), host, portText, what)
}

// connectLoopback tries both families, because many development servers listen
// at one of them only, and does not ask a resolver what localhost is.
func (t *targets) connectLoopback(ctx context.Context, network, host, port, what string) (net.Conn, error) {
	first, second := "127.0.0.1", "::1"
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is6() && !addr.Is4In6() {
		first, second = second, first
	}
	conn, err := t.connect(ctx, network, net.JoinHostPort(first, port), what)
	if err == nil || ctx.Err() != nil {
		return conn, err
	}
	if conn, other := t.connect(ctx, network, net.JoinHostPort(second, port), what); other == nil {
		return conn, nil
	}
	return nil, err
}

// isWorkspace: the name means the workspace itself.
func (t *targets) isWorkspace(host string) bool {
	if host == "" || strings.EqualFold(host, "localhost") || host == "workspace" || host == t.manifest.WorkspaceName {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// inside resolves a path against the workspace's directory.
func (t *targets) inside(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(t.dir, path)
}

// socket allows Unix sockets inside the workspace's directory alone, links
// followed. The error is a *events.Reply.
func (t *targets) socket(path string) (string, error) {
	named := filepath.Clean(t.inside(path))
	if t.outsideSockets {
		return named, nil
	}
	dir, err := filepath.EvalSymlinks(t.dir)
	if err != nil {
		return "", &events.Reply{Code: events.ReplyInternal, Text: "the workspace's directory is not there"}
	}
	real, err := filepath.EvalSymlinks(named)
	switch {
	case err != nil && within(filepath.Clean(t.dir), named):
		return "", &events.Reply{Code: events.ReplyRefused, Text: fmt.Sprintf("there is no socket %s in workspace %s", path, t.manifest.WorkspaceName)}
	case err != nil, !within(dir, real):
		return "", &events.Reply{Code: events.ReplyDenied, Text: "sockets outside the workspace's directory are not reachable"}
	}
	return real, nil
}

func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// connectUnix connects to a socket whose path may be longer than the kernel
// takes.
func (t *targets) connectUnix(ctx context.Context, path, what string) (net.Conn, error) {
	short, release, err := shortSocketPath(path)
	if err != nil {
		return nil, explainDial(err, what)
	}
	defer release()
	return t.connect(ctx, "unix", short, what)
}

// maxSocketPath is the longest path that every system takes for a socket, in
// bytes.
const maxSocketPath = 103

// relativeSocketPath is the path from the working directory if that is short
// enough, and else the path itself.
func relativeSocketPath(path string) string {
	if len(path) <= maxSocketPath {
		return path
	}
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, path); err == nil && len(rel) <= maxSocketPath {
			return rel
		}
	}
	return path
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
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTSOCK):
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
