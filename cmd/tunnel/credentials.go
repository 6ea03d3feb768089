package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// credentials are the tokens of the servers that the user works with, kept in
// the user's configuration, readable by nobody else.
type credentials struct {
	Servers map[string]serverCredentials `json:"servers"`
}

type serverCredentials struct {
	Token string `json:"token"`
}

func credentialsPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no configuration directory: %w", err)
	}
	return filepath.Join(dir, "tunneler", "credentials.json"), nil
}

func loadCredentials() (credentials, error) {
	c := credentials{Servers: make(map[string]serverCredentials)}
	path, err := credentialsPath()
	if err != nil {
		return c, err
	}
	_, err = readPrivate(path, &c)
	if c.Servers == nil {
		c.Servers = make(map[string]serverCredentials)
	}
	return c, err
}

// saveToken keeps the token of one server beside those of others.
func saveToken(server, token string) error {
	c, err := loadCredentials()
	if err != nil {
		return err
	}
	c.Servers[server] = serverCredentials{Token: token}
	path, err := credentialsPath()
	if err != nil {
		return err
	}
	if err := privateDir(filepath.Dir(path)); err != nil {
		return err
	}
	return writePrivate(path, c)
}

// tokenFor finds the token for a server: $TUNNEL_TOKEN, else the credentials.
func tokenFor(server string) (string, error) {
	if t := os.Getenv("TUNNEL_TOKEN"); t != "" {
		return t, nil
	}
	c, err := loadCredentials()
	if err != nil {
		return "", err
	}
	if s, ok := c.Servers[server]; ok {
		return s.Token, nil
	}
	return "", &failure{
		err: fmt.Errorf("no token for %s", server), code: exitForbidden,
		hints: []string{"set TUNNEL_TOKEN to the token that `tunnel serve` printed when it first ran"},
	}
}

// normalServer checks the URL of a server and brings it into the form under
// which its token is kept: scheme and host, no trailing slash.
func normalServer(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", usagef("bad server URL %q: expected https://HOST[:PORT]", s)
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		return "", &failure{err: fmt.Errorf("%s is not encrypted: plain http is for loopback only", s), code: exitUsage, hints: []string{"use https://" + u.Host}}
	}
	if u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", usagef("bad server URL %q: expected scheme, host and port alone", s)
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), nil
}
