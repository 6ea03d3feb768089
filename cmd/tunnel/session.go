package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tunneler/tunneler/workspace/client"
	"github.com/tunneler/tunneler/workspace/store"
)

// session is a command's way to a coordinator: one that was named, the
// embedded server of another command, or an embedded server of its own.
type session struct {
	*client.Client
	server string  // URL for people
	own    *server // the embedded server, when it is this command's
	dir    string  // data directory of a server that was joined
	close  func() error
}

// Close ends the session, and with it an embedded server of its own.
func (s *session) Close() error {
	s.Client.Close()
	if s.close == nil {
		return nil
	}
	return s.close()
}

// openSession finds or makes the coordinator to work with. keep says that an
// embedded server leaves running what is started in this session.
func (p *program) openSession(ctx context.Context, keep bool) (*session, error) {
	name := p.flags.server
	if name == "" {
		name = os.Getenv("TUNNEL_SERVER")
	}
	if name != "" {
		return p.openRemote(name)
	}
	dir, err := p.dataDir()
	if err != nil {
		return nil, err
	}
	return p.openEmbedded(ctx, dir, keep)
}

func (p *program) openRemote(name string) (*session, error) {
	url, err := normalServer(name)
	if err != nil {
		return nil, err
	}
	token, err := tokenFor(url)
	if err != nil {
		return nil, err
	}
	c := client.New(client.FixedURL(url), client.StaticToken(token), client.Options{UserAgent: "tunnel/" + version})
	return &session{Client: c, server: url}, nil
}

// joinTimeout is how long a command waits for another one's embedded server
// that has the data directory but does not answer yet.
const joinTimeout = 10 * time.Second

// openEmbedded joins the server that has the data directory, or becomes it.
func (p *program) openEmbedded(ctx context.Context, dir string, keep bool) (*session, error) {
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(joinTimeout)
	for {
		if s := joinServer(ctx, dir); s != nil {
			return s, nil
		}
		srv, err := p.startEmbedded(ctx, dir, keep)
		if err == nil {
			return &session{Client: srv.client(), server: srv.url, own: srv, close: srv.Close}, nil
		}
		if !errors.Is(err, store.ErrInUse) {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, withHint(fmt.Errorf("another process has the data directory %s, and its server does not answer", dir),
				"end that process, or use another --data-dir")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (p *program) startEmbedded(ctx context.Context, dir string, keep bool) (*server, error) {
	return startServer(ctx, serverConfig{dir: dir, embedded: true, keep: keep, logger: p.logger(p.logLevel())})
}

// takeOverInterval is the time between two looks at a server that was joined.
const takeOverInterval = time.Second

// inherit waits for the end of the embedded server that this session has
// joined, and then becomes the server, so that whoever shares a data directory
// can come and go. It returns when it has, or when ctx ends. Nobody else may
// use the session's own and close meanwhile.
func (p *program) inherit(ctx context.Context, s *session, keep bool) {
	tick := time.NewTicker(takeOverInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if alive(ctx, (&discovered{path: discoveryPath(s.dir)}).url()) || ctx.Err() != nil {
			continue
		}
		// The directory's lock decides who of those that wait becomes it.
		srv, err := p.startEmbedded(ctx, s.dir, keep)
		if err != nil {
			continue
		}
		p.ui.info("the server of this data directory has ended; it goes on in this command")
		s.own, s.close = srv, srv.Close
		return
	}
}

// alive reports whether a server answers.
func alive(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/healthz", http.NoBody)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// discovery is what an embedded server leaves in its data directory for other
// commands and for the agents of this machine.
type discovery struct {
	URL   string `json:"url"`
	PID   int    `json:"pid"`
	Token string `json:"token"`
	// Standalone is set for `tunnel serve`, which nobody is to replace when it
	// ends: it may be restarting.
	Standalone bool `json:"standalone,omitempty"`
}

func discoveryPath(dir string) string { return filepath.Join(dir, "server.json") }

// agentsPath is the same without the token, for agents; it stays when the
// server ends, so that the next one takes the same port if it can.
func agentsPath(dir string) string { return discoveryPath(dir) + ".agents" }

// joinServer gives a session with the server that the data directory names, if
// it lives.
func joinServer(ctx context.Context, dir string) *session {
	d := &discovered{path: discoveryPath(dir)}
	if d.read(); d.last.URL == "" {
		return nil
	}
	if !alive(ctx, d.last.URL) {
		return nil
	}
	c := client.New(d.url, d.token, client.Options{UserAgent: "tunnel/" + version})
	if d.last.Standalone {
		dir = ""
	}
	return &session{Client: c, server: d.last.URL, dir: dir}
}

// discovered follows the discovery file: the server may be replaced by another
// command's, at another port.
type discovered struct {
	path string
	mu   sync.Mutex
	last discovery
}

func (d *discovered) read() discovery {
	d.mu.Lock()
	defer d.mu.Unlock()
	var now discovery
	if ok, err := readPrivate(d.path, &now); ok && err == nil && now.URL != "" {
		d.last = now
	}
	return d.last
}

func (d *discovered) url() string { return d.read().URL }

func (d *discovered) token(context.Context) (string, error) { return d.read().Token, nil }
