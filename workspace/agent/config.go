package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Config says how an agent runs.
type Config struct {
	// Server is the coordinator's URL. Instead of it, ServerFile names a JSON
	// file {"url": ...} that is read at each connect: a server may move.
	Server     string
	ServerFile string
	// TokenFile holds the agent's token. It must be readable by nobody else;
	// a renewed token is written back to it.
	TokenFile string
	// Dir is the workspace's directory, in which scripts and services run;
	// empty means the working directory.
	Dir string
	// OutsideSockets lets tunnels reach any Unix socket that the agent can, and
	// not only those in Dir and those that the template maps a port to.
	OutsideSockets bool
	// Listen are the UDP addresses to take tailnet connections at. Empty means
	// loopback if the server is on loopback, else every address.
	Listen []string
	// Version is the program's version.
	Version string
	// Logger takes what an operator should know; nil means silence.
	Logger *zap.Logger
	// Environ is the environment that scripts and services inherit, less what
	// concerns the agent alone; nil means the agent's own.
	Environ []string
	// Grace is how long services may take to end once asked to; 0 means 5 s. A
	// provisioner waits 10 s for all that comes after the shutdown script.
	Grace time.Duration
}

// Why an agent ended other than by being told to.
var (
	// ErrUnauthorized means that the coordinator does not take our token.
	ErrUnauthorized = errors.New("the coordinator does not accept the agent's token")
	// ErrReplaced means that the build that this agent belongs to is over.
	ErrReplaced = errors.New("the coordinator has no more use for this agent: its build is over")
)

func (c Config) withDefaults() (Config, error) {
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Grace == 0 {
		c.Grace = 5 * time.Second
	}
	if (c.Server == "") == (c.ServerFile == "") {
		return c, errors.New("the agent needs the URL of its server, or a file that holds it, and not both")
	}
	if c.TokenFile == "" {
		return c, errors.New("the agent needs a file with its token")
	}
	if c.Environ == nil {
		c.Environ = os.Environ()
	}
	dir, err := filepath.Abs(c.Dir) // of none, the working directory
	c.Dir = dir
	return c, err
}

// serverURL is where the coordinator is now.
func (c *Config) serverURL() (string, error) {
	if c.Server != "" {
		return strings.TrimSuffix(c.Server, "/"), nil
	}
	b, err := os.ReadFile(c.ServerFile)
	if err != nil {
		return "", fmt.Errorf("cannot find the server: %w", err)
	}
	var d struct{ URL string }
	if err := json.Unmarshal(b, &d); err != nil || d.URL == "" {
		return "", fmt.Errorf("cannot find the server: %s names none", c.ServerFile)
	}
	return strings.TrimSuffix(d.URL, "/"), nil
}

// listenAddrs are where to listen: least exposure by default.
func (c *Config) listenAddrs() []string {
	if len(c.Listen) > 0 {
		return c.Listen
	}
	server, err := c.serverURL()
	if err != nil || !onLoopback(server) {
		return []string{":0"}
	}
	addrs := []string{"127.0.0.1:0"}
	if l, err := net.ListenPacket("udp6", "[::1]:0"); err == nil {
		l.Close()
		addrs = append(addrs, "[::1]:0")
	}
	return addrs
}

func onLoopback(server string) bool {
	u, err := url.Parse(server)
	if err != nil {
		return false
	}
	if u.Hostname() == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.IsLoopback()
}
