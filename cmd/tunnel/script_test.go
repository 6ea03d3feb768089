package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
)

// TestScripts runs testdata/script: each command and exit code as a person
// meets them, with the real program.
func TestScripts(t *testing.T) {
	bin := filepath.Dir(tunnelBinary)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			data := shortTempDir(t)
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "config"))
			env.Setenv("TUNNEL_DATA_DIR", data)
			env.Setenv("FREE_PORT", freePort(t))
			env.Defer(func() {
				h := &host{t: t, dataDir: data}
				h.requireNothingLeft()
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":    scriptCode,
			"occupy":  scriptOccupy,
			"expired": scriptExpired,
		},
	})
}

// freePort is a port that nothing listens on, for a server whose address has
// to be known before it runs.
func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port
}

// scriptCode runs the program and checks its exit code: code N ARGS...
func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("tunnel", args[1:]...)
	got := 0
	if err != nil {
		var exit interface{ ExitCode() int }
		if !asExit(err, &exit) {
			ts.Fatalf("tunnel: %v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("tunnel ended with %d, want %d\n%s", got, want, ts.ReadFile("stderr"))
	}
}

func asExit(err error, target *interface{ ExitCode() int }) bool {
	e, ok := err.(interface{ ExitCode() int })
	*target = e
	return ok
}

// scriptOccupy listens on a port of its own choice until the script ends, and
// puts its number into the variable: occupy VAR
func scriptOccupy(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	ts.Setenv(args[0], port)
}

// scriptExpired puts a token that has expired, and that nobody signed whom the
// server knows, into the variable: expired VAR
func scriptExpired(ts *testscript.TestScript, _ bool, args []string) {
	tok := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.RegisteredClaims{ExpiresAt: jwt.NewNumericDate(time.Unix(1, 0))})
	s, err := tok.SignedString([]byte("nobody"))
	ts.Check(err)
	ts.Setenv(args[0], s)
}

func TestHelpOfEveryCommandNamesItsFlags(t *testing.T) {
	h := newHost(t)
	for _, cmd := range [][]string{{}, {"up"}, {"serve"}, {"agent"}, {"workspaces"}, {"workspaces", "logs"}, {"templates"}, {"graph"}, {"version"}, {"completion"}} {
		out := h.mustRun(append(cmd, "--help")...)
		require.Contains(t, out, "Usage:")
		require.Contains(t, out, "--help")
	}
}
