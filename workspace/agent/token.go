package agent

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/workspace/api"
)

// callTimeout bounds one call of the coordinator's API.
const callTimeout = 30 * time.Second

// credentials are the agent's token, kept in a file and renewed in time.
type credentials struct {
	cfg  *Config
	http *http.Client

	mu    sync.Mutex
	token string
}

func newCredentials(cfg *Config) (*credentials, error) {
	c := &credentials{cfg: cfg, http: &http.Client{
		Timeout:   callTimeout,
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment},
		// A coordinator does not move its API, and the token is for it alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	return c, c.load()
}

// close lets go of idle connections.
func (c *credentials) close() { c.http.CloseIdleConnections() }

// load reads the token file, and refuses one that others can read.
func (c *credentials) load() error {
	info, err := os.Stat(c.cfg.TokenFile)
	if err != nil {
		return fmt.Errorf("cannot read the agent's token: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("the token file %s can be read by others (mode %04o): chmod 600 it", c.cfg.TokenFile, info.Mode().Perm())
	}
	b, err := os.ReadFile(c.cfg.TokenFile)
	if err != nil {
		return fmt.Errorf("cannot read the agent's token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return fmt.Errorf("the token file %s is empty", c.cfg.TokenFile)
	}
	c.mu.Lock()
	c.token = token
	c.mu.Unlock()
	return nil
}

func (c *credentials) current() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.token
}

// keepFresh renews the token at half its life until ctx ends. A failure is
// tried again in a minute: there is as much time again.
func (c *credentials) keepFresh(ctx context.Context) {
	for {
		issued, expires := lifeOf(c.current())
		wait := time.Until(issued.Add(expires.Sub(issued) / 2))
		if !sleep(ctx, max(wait, 0)) {
			return
		}
		if err := c.renew(ctx); err != nil {
			c.cfg.Logger.Warn("cannot renew the agent's token", zap.Error(err))
			if !sleep(ctx, time.Minute) {
				return
			}
		}
	}
}

// lifeOf reads the times of a token without verifying it: it is our own. A
// token that cannot be read is left as it is for a day.
func lifeOf(token string) (issued, expires time.Time) {
	var claims struct{ IAT, EXP int64 }
	if parts := strings.Split(token, "."); len(parts) == 3 {
		if b, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			_ = json.Unmarshal(b, &claims) // zero claims are handled below
		}
	}
	if claims.EXP <= claims.IAT || claims.IAT == 0 {
		now := time.Now()
		return now, now.Add(48 * time.Hour)
	}
	return time.Unix(claims.IAT, 0), time.Unix(claims.EXP, 0)
}

func (c *credentials) renew(ctx context.Context) error {
	var t api.Token
	if err := c.call(ctx, http.MethodPost, "/api/v1/agent/token", &t); err != nil {
		return err
	}
	if t.Token == "" {
		return errors.New("the coordinator sent no token")
	}
	if issued, expires := lifeOf(t.Token); time.Until(expires) < expires.Sub(issued)/2 {
		return errors.New("the coordinator sent a token that is nearly over")
	}
	// A full disk does not make the new token a worse one for this process.
	c.mu.Lock()
	c.token = t.Token
	c.mu.Unlock()
	return replaceFile(c.cfg.TokenFile, []byte(t.Token+"\n"))
}

// manifest asks what this agent is to do.
func (c *credentials) manifest(ctx context.Context) (api.Manifest, error) {
	var m api.Manifest
	return m, c.call(ctx, http.MethodGet, "/api/v1/agent/manifest", &m)
}

// maxAnswer bounds an answer of the coordinator in bytes.
const maxAnswer = 4 << 20

func (c *credentials) call(ctx context.Context, method, path string, out any) error {
	server, err := c.cfg.serverURL()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, server+path, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.current())
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 == 2 {
		return json.NewDecoder(bytes.NewReader(body)).Decode(out)
	}
	var e api.Error
	if json.Unmarshal(body, &e) != nil || e.Message == "" {
		e = api.Error{Message: fmt.Sprintf("the coordinator answered %s", resp.Status)}
	}
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		return fmt.Errorf("%w: %w", ErrUnauthorized, &e)
	}
	return &e
}

// replaceFile writes a file that only its user can read, whole or not at all.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".token.*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(b); err == nil {
		err = f.Sync() // or else a crash may leave an empty file under the name
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// sleep waits, and reports whether it was left in peace.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
