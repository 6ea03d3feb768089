package agent

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/channel"
	"github.com/tunneler/tunneler/workspace/api"
)

func TestAnAgentThatIsNotWantedStopsEverythingAndSaysWhy(t *testing.T) {
	over := &events.SessionReject{Code: events.RejectBuildOver, Message: "build 3 is over"}
	for name, c := range map[string]struct {
		end  func(co *coordinator)
		want error
		text string
	}{
		"its build is over": {
			func(co *coordinator) { co.connection().Reject(over) }, ErrReplaced, "build 3 is over",
		},
		"its build is over when it comes back": {
			func(co *coordinator) {
				co.set(func() { co.reject = over })
				co.hangUp()
			}, ErrReplaced, "build 3 is over",
		},
		"another has taken its place": {
			func(co *coordinator) {
				co.connection().Reject(&events.SessionReject{Code: events.RejectReplaced, Message: "another agent has come"})
			}, ErrReplaced, "another agent has come",
		},
		"its token is not good any more": {
			func(co *coordinator) {
				co.set(func() { co.token = "" })
				co.hangUp()
			}, ErrUnauthorized, "the token has expired",
		},
		"its session is not": {
			func(co *coordinator) {
				co.connection().Reject(&events.SessionReject{Code: events.RejectUnauthorized, Message: "not for this agent"})
			}, ErrUnauthorized, "not for this agent",
		},
		"for a reason of another kind": {
			func(co *coordinator) {
				co.connection().Reject(&events.SessionReject{Code: events.RejectBadHello, Message: "what is that"})
			}, nil, "the coordinator is lost: what is that",
		},
	} {
		t.Run(name, func(t *testing.T) {
			co := newCoordinator(t, `
services: [{name: web, command: "echo pid $$; exec sleep 1000"}]
shutdown_script: {run: "touch shut-down"}
`)
			a := co.start(nil)
			service := pidOf(co.untilSaid("line web: pid"))
			c.end(co)
			err := a.wait()
			require.ErrorContains(t, err, c.text)
			for _, e := range []error{ErrReplaced, ErrUnauthorized} {
				require.Equal(t, errors.Is(c.want, e), errors.Is(err, e), "%v is %v", err, e)
			}
			require.False(t, alive(service))
			require.FileExists(t, filepath.Join(a.cfg.Dir, "shut-down"))
		})
	}
}

func TestAnAgentThatIsNotWantedFromTheBeginningRunsNothing(t *testing.T) {
	co := newCoordinator(t, `startup_script: {run: "touch started"}`)
	co.token = ""
	a := co.start(nil)
	err := a.wait()
	require.ErrorIs(t, err, ErrUnauthorized)
	require.ErrorContains(t, err, "the token has expired")
	require.NoFileExists(t, filepath.Join(a.cfg.Dir, "started"))
	require.Empty(t, co.all())
}

func TestAnAgentWaitsForItsCoordinatorToCome(t *testing.T) {
	co := newCoordinator(t, "")
	file := filepath.Join(t.TempDir(), "server.json")
	a := co.start(func(c *Config) { c.Server, c.ServerFile = "", file })
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `{"url": %q}`, co.server.URL), 0o600))
	co.untilSaid("life ready")
	require.NoError(t, a.stop())
}

func TestAnAgentThatIsToldToEndWhileItWaitsEnds(t *testing.T) {
	co := newCoordinator(t, "")
	a := co.start(func(c *Config) { c.Server, c.ServerFile = "", filepath.Join(t.TempDir(), "none") })
	require.NoError(t, a.stop())
}

func TestAnAgentFollowsItsCoordinatorToAnotherAddress(t *testing.T) {
	co := newCoordinator(t, "")
	file := filepath.Join(t.TempDir(), "server.json")
	write := func(url string) {
		require.NoError(t, replaceFile(file, fmt.Appendf(nil, `{"url": %q}`, url)))
	}
	write(co.server.URL)
	a := co.start(func(c *Config) { c.Server, c.ServerFile = "", file })
	co.untilSaid("life ready")

	moved := httptest.NewServer(co.routes())
	defer moved.Close()
	write(moved.URL)
	old := co.connection()
	co.drop()
	co.server.Listener.Close()
	conn := co.connection()
	require.NotSame(t, old, conn)
	co.mu.Lock()
	require.Equal(t, 2, co.hellos)
	co.mu.Unlock()
	require.NoError(t, a.stop())
	require.Equal(t, []string{"created", "starting", "ready", "shutting_down", "off"}, co.life())
}

func TestTheLastWordsWaitForAnUnreachableCoordinatorOnlySoLong(t *testing.T) {
	co := newCoordinator(t, "")
	a := co.start(nil)
	co.untilSaid("life ready")
	co.drop()
	co.server.Close()
	began := time.Now()
	require.NoError(t, a.stop())
	require.Less(t, time.Since(began), 8*time.Second, "a provisioner kills after ten")
}

// jwt is a token that says when it was issued and expires; nobody here checks
// its signature.
func jwt(issued, expires time.Time, name string) string {
	claims, _ := json.Marshal(map[string]any{"iat": issued.Unix(), "exp": expires.Unix(), "jti": name})
	return "e30." + base64.RawURLEncoding.EncodeToString(claims) + ".sig"
}

func TestATokenIsRenewedAtHalfItsLifeAndWrittenBack(t *testing.T) {
	co := newCoordinator(t, "")
	now := time.Now()
	old, fresh := jwt(now.Add(-2*time.Hour), now.Add(time.Hour), "old"), jwt(now, now.Add(time.Hour), "fresh")
	co.token, co.renew = old, api.Token{Token: fresh, Expires: now.Add(time.Hour)}
	a := co.start(func(c *Config) { require.NoError(t, os.WriteFile(c.TokenFile, []byte(old), 0o600)) })
	co.until("that it has another token", func([]string) bool {
		b, err := os.ReadFile(a.cfg.TokenFile)
		require.NoError(t, err)
		if string(b) == fresh+"\n" {
			return true
		}
		co.set(co.broadcast) // look again
		return false
	})
	info, err := os.Stat(a.cfg.TokenFile)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	co.untilSaid("life ready")
	co.hangUp() // only the new one is accepted now
	co.connection()
	require.NoError(t, a.stop())
	left, err := filepath.Glob(filepath.Join(filepath.Dir(a.cfg.TokenFile), "*"))
	require.NoError(t, err)
	require.Equal(t, []string{a.cfg.TokenFile}, left)
}

func TestATokenThatSomebodyHasReplacedIsTaken(t *testing.T) {
	co := newCoordinator(t, "")
	a := co.start(nil)
	co.untilSaid("life ready")
	require.NoError(t, replaceFile(a.cfg.TokenFile, []byte("another-token")))
	co.set(func() { co.token = "another-token" })
	co.hangUp()
	co.connection()
	require.NoError(t, a.stop())
}

func TestARenewedTokenIsGoodAlsoWhenItCannotBeWritten(t *testing.T) {
	fresh := jwt(time.Now(), time.Now().Add(time.Hour), "fresh")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(api.Token{Token: fresh})
	}))
	defer server.Close()
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	c, err := newCredentials(&Config{Server: server.URL, TokenFile: path})
	require.NoError(t, err)
	defer c.close()
	require.NoError(t, os.RemoveAll(dir))
	require.Error(t, c.renew(context.Background()))
	require.Equal(t, fresh, c.current())
}

func TestATokenThatIsNoBetterIsNotTaken(t *testing.T) {
	now := time.Now()
	for name, token := range map[string]string{
		"none":               "",
		"one that is over":   jwt(now.Add(-2*time.Hour), now.Add(-time.Hour), ""),
		"one that is nearly": jwt(now.Add(-2*time.Hour), now.Add(time.Hour), ""),
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_ = json.NewEncoder(w).Encode(api.Token{Token: token})
			}))
			defer server.Close()
			path := filepath.Join(t.TempDir(), "token")
			require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
			c, err := newCredentials(&Config{Server: server.URL, TokenFile: path})
			require.NoError(t, err)
			defer c.close()
			require.Error(t, c.renew(t.Context()))
			require.Equal(t, "old", c.current())
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, "old", string(b))
		})
	}
}

func TestTheTokenGoesNowhereElse(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer elsewhere.Close()
	server := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(path, []byte("secret"), 0o600))
	c, err := newCredentials(&Config{Server: server.URL, TokenFile: path})
	require.NoError(t, err)
	defer c.close()
	_, err = c.manifest(t.Context())
	require.ErrorContains(t, err, "307")
}

func TestWhyAChannelEnded(t *testing.T) {
	require.ErrorIs(t, whyEnded(&channel.HandshakeError{Status: http.StatusForbidden}), ErrUnauthorized)
	require.ErrorIs(t, whyEnded(&channel.RejectError{Reject: &events.SessionReject{Code: events.RejectReplaced}}), ErrReplaced)
	err := whyEnded(&channel.HandshakeError{Status: http.StatusGone})
	require.NotErrorIs(t, err, ErrUnauthorized)
	require.NotErrorIs(t, err, ErrReplaced)
}

func TestAConfigThatLacksSomethingIsRefused(t *testing.T) {
	good := Config{Server: "http://127.0.0.1:1", TokenFile: "token"}
	for name, spoil := range map[string]func(*Config){
		"no server":   func(c *Config) { c.Server = "" },
		"two servers": func(c *Config) { c.ServerFile = "file" },
		"no token":    func(c *Config) { c.TokenFile = "" },
	} {
		c := good
		_, err := c.withDefaults()
		require.NoError(t, err)
		spoil(&c)
		require.Error(t, Run(t.Context(), c), name)
	}
}
