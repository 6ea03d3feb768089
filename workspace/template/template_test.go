package template

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGoldenErrors(t *testing.T) {
	datadriven.RunTest(t, "testdata/errors.txt", func(t *testing.T, d *datadriven.TestData) string {
		parsed, err := Parse("my.yaml", []byte(d.Input))
		require.Nil(t, parsed)
		var syntax *SyntaxError
		require.ErrorAs(t, err, &syntax)
		require.Positive(t, syntax.Line)
		require.Positive(t, syntax.Column)
		require.NotContains(t, err.Error(), "\n")
		return err.Error() + "\n"
	})
}

func TestOversizedTemplatesAreRefused(t *testing.T) {
	services := func(n int) string {
		var b strings.Builder
		b.WriteString("name: demo\nservices:\n")
		for i := range n {
			fmt.Fprintf(&b, "  - {name: s%d, command: run}\n", i)
		}
		return b.String()
	}
	for name, c := range map[string]struct{ yaml, want string }{
		"larger than 256 KiB": {
			"name: demo\n" + strings.Repeat("#", MaxSize),
			"my.yaml:1:1: the template has 262155 bytes, expected at most 262144 (256 KiB)",
		},
		"more tokens than the parser is given": {
			"name: demo\nenv:\n" + strings.Repeat("  a: b\n", 10_000),
			"my.yaml:5462:6: the template has more values and signs than 16384, expected fewer",
		},
		"a script longer than an argument may be": {
			"name: demo\nstart: " + strings.Repeat("x", maxText+1),
			"my.yaml:2:8: start has 65537 bytes, expected at most 65536 (64 KiB)",
		},
		"more services than a list may hold": {
			services(257),
			"my.yaml:3:3: services has 257 items, expected at most 256",
		},
		"bytes that are not text": {
			"name: demo\ndescription: caf\xe9\n",
			"my.yaml:2:17: byte 0xe9 is not UTF-8, expected a UTF-8 text file",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("my.yaml", []byte(c.yaml))
			require.EqualError(t, err, c.want)
		})
	}
	_, err := Parse("my.yaml", []byte(services(256)))
	require.NoError(t, err)
}

func TestAnAliasBombIsRefusedBeforeItIsBuilt(t *testing.T) {
	var b strings.Builder
	b.WriteString("name: demo\nenv:\n  a0: &a0 lol\n")
	for i := 1; i < 30; i++ {
		fmt.Fprintf(&b, "  a%d: &a%d [*a%d, *a%d]\n", i, i, i-1, i-1)
	}
	_, err := Parse("bomb.yaml", []byte(b.String()))
	require.EqualError(t, err,
		"bomb.yaml:3:7: anchors, aliases and merge keys are not supported, expected the value written out")
}

const full = `
name: everything   # a comment
description: all keys
provisioner: process
directory: src/./app/
env: {WORD: word, NUMBER: 010, FLOAT: 1.50, TRUTH: true, EMPTY: ""}
start: |
  . ./env.sh
  exec "$TUNNEL_BIN" agent
start_timeout: 90s
ports:
  - port: 3000
    name: web
    description: the page
    target: unix:./run//web.sock
  - {port: 5432, target: "tcp:[::1]:15432"}
  - port: 8080
startup_script:
  run: echo up
  blocking: false
  timeout: 1m
shutdown_script:
  run: echo down
services:
  - name: web
    command: exec serve --port $PORT
    env: {PORT: 3000}
    directory: /srv/web
    restart: on-failure
    ready: {port: 3000}
  - name: worker
    command: [work, --jobs, 2, ""]
    restart: never
`

func TestEveryKeyIsRead(t *testing.T) {
	got, err := Parse("full.yaml", []byte(full))
	require.NoError(t, err)
	require.Equal(t, &Template{
		Name:        "everything",
		Description: "all keys",
		Provisioner: ProvisionerProcess,
		Directory:   "src/app",
		Env: map[string]string{
			"WORD": "word", "NUMBER": "010", "FLOAT": "1.50", "TRUTH": "true", "EMPTY": "",
		},
		Start:        ". ./env.sh\nexec \"$TUNNEL_BIN\" agent\n",
		StartTimeout: Duration(90 * time.Second),
		Ports: []Port{
			{Port: 3000, Name: "web", Description: "the page", Target: Target{"unix", "run/web.sock"}},
			{Port: 5432, Target: Target{"tcp", "[::1]:15432"}},
			{Port: 8080},
		},
		StartupScript:  &StartupScript{Run: "echo up", Timeout: Duration(time.Minute)},
		ShutdownScript: &ShutdownScript{Run: "echo down", Timeout: Duration(30 * time.Second)},
		Services: []Service{
			{
				Name: "web", Command: Command{Shell: "exec serve --port $PORT"}, Env: map[string]string{"PORT": "3000"},
				Directory: "/srv/web", Restart: RestartOnFailure, Ready: &Ready{Port: 3000, Timeout: Duration(10 * time.Second)},
			},
			{
				Name: "worker", Command: Command{Args: []string{"work", "--jobs", "2", ""}},
				Directory: ".", Restart: RestartNever,
			},
		},
	}, got)
}

func TestAMinimalTemplateGetsTheDefaults(t *testing.T) {
	got, err := Parse("x", []byte("\ufeff---\r\nname: x\r\nstartup_script:\r\n  run: |\r\n    a\r\n    b\r\n"))
	require.NoError(t, err)
	require.Equal(t, &Template{
		Name: "x", Provisioner: ProvisionerProcess, Directory: ".", StartTimeout: Duration(2 * time.Minute),
		StartupScript: &StartupScript{Run: "a\nb\n", Blocking: true, Timeout: Duration(5 * time.Minute)},
	}, got)
}

func TestTargetsOfPorts(t *testing.T) {
	parsed, err := Parse("full.yaml", []byte(full))
	require.NoError(t, err)
	target, ok := parsed.Target(3000)
	require.True(t, ok)
	require.Equal(t, "unix:run/web.sock", target.String())
	for _, port := range []int{8080, 9} {
		_, ok = parsed.Target(port)
		require.False(t, ok, "port %d has no target of its own", port)
	}
}

func TestACommandIsAListOrALineForTheShell(t *testing.T) {
	require.Equal(t, []string{"a", "b c"}, Command{Args: []string{"a", "b c"}}.Argv())
	require.Equal(t, []string{"/bin/sh", "-c", "a $B"}, Command{Shell: "a $B"}.Argv())
	var c Command
	require.Error(t, json.Unmarshal([]byte(`{"a": 1}`), &c))
}

func TestHashIsOfTheMeaning(t *testing.T) {
	parse := func(yaml string) string {
		parsed, err := Parse("x", []byte(yaml))
		require.NoError(t, err)
		return parsed.Hash()
	}
	base := parse("name: x\nenv: {A: 1, B: 2}\n")
	require.Len(t, base, 64)
	require.Equal(t, base, parse("# written otherwise\nprovisioner: process\nenv:\n  B: '2'\n  A: \"1\"\nname: x\n"))
	require.NotEqual(t, base, parse("name: x\nenv: {A: 1, B: 3}\n"))
	require.Equal(t, parse("name: x\n"), parse("name: x\nenv: {}\nservices: []\n"))
}

func TestTheBuiltInTemplatesAreValidAndOwnedByTheCaller(t *testing.T) {
	templates := Builtin()
	require.NotEmpty(t, templates)
	demo := templates[0]
	require.Equal(t, "demo", demo.Name)
	require.Equal(t, 3000, demo.Ports[0].Port)
	target, ok := demo.Target(3000)
	require.True(t, ok)
	require.Equal(t, "unix", target.Network)
	require.Contains(t, demo.Services[0].Command.Shell, "demo-service --listen "+target.String())

	demo.Ports[0].Port = 1
	require.Equal(t, 3000, Builtin()[0].Ports[0].Port)
}

func TestTheScriptsOfTheDemoSayAFewFriendlyLines(t *testing.T) {
	demo := Builtin()[0]
	dir := t.TempDir()
	for script, want := range map[string]string{
		demo.StartupScript.Run:  "preparing workspace w1\nthe demo page is on port 3000\n",
		demo.ShutdownScript.Run: "workspace w1 says goodbye\n",
	} {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TUNNELER_WORKSPACE_NAME=w1"}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err)
		require.Equal(t, want, string(out))
	}
	require.DirExists(t, filepath.Join(dir, "run"))
}

func TestTheNearestKeyIsTheOneMeant(t *testing.T) {
	known := []string{"name", "start", "start_timeout", "services"}
	for word, want := range map[string]string{
		"nam": "name", "serivces": "services", "startTimeout": "start_timeout", "strat": "start", "image": "", "x": "",
	} {
		require.Equal(t, want, nearest(word, known), word)
	}
}

// drawTemplate draws a valid template.
func drawTemplate(t *rapid.T) *Template {
	name := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?`)
	text := rapid.StringN(0, 40, 80).Filter(func(s string) bool { return !strings.ContainsRune(s, 0) })
	script := text.Filter(func(s string) bool { return strings.TrimSpace(s) != "" })
	line := text.Filter(func(s string) bool { return !strings.ContainsAny(s, "\r\n") })
	env := rapid.MapOfN(rapid.StringMatching(`[A-Z_]{1,8}`).Filter(func(s string) bool {
		return !strings.HasPrefix(s, "TUNNEL")
	}), text, 0, 4)
	duration := rapid.Custom(func(t *rapid.T) Duration {
		return Duration(rapid.Int64Range(int64(time.Millisecond), int64(24*time.Hour)).Draw(t, "duration"))
	})
	drawEnv := func() map[string]string {
		if m := env.Draw(t, "env"); len(m) > 0 {
			return m
		}
		return nil
	}
	out := &Template{
		Name: name.Draw(t, "name"), Description: line.Draw(t, "description"), Provisioner: ProvisionerProcess,
		Directory: rapid.SampledFrom([]string{".", "a/b", "/srv"}).Draw(t, "directory"),
		Env:       drawEnv(), StartTimeout: duration.Draw(t, "start timeout"),
	}
	for _, port := range rapid.SliceOfNDistinct(rapid.IntRange(1, 65535), 0, 3, rapid.ID).Draw(t, "ports") {
		target := rapid.SampledFrom([]Target{{}, {"unix", "run/a b.sock"}, {"tcp", "[::1]:80"}}).Draw(t, "target")
		out.Ports = append(out.Ports, Port{Port: port, Description: line.Draw(t, "port description"), Target: target})
	}
	if rapid.Bool().Draw(t, "scripts") {
		out.Start = script.Draw(t, "start")
		out.StartupScript = &StartupScript{
			Run: script.Draw(t, "startup"), Blocking: rapid.Bool().Draw(t, "blocking"), Timeout: duration.Draw(t, "timeout"),
		}
		out.ShutdownScript = &ShutdownScript{Run: script.Draw(t, "shutdown"), Timeout: duration.Draw(t, "timeout")}
	}
	for _, n := range rapid.SliceOfNDistinct(name, 0, 3, rapid.ID).Draw(t, "services") {
		s := Service{Name: n, Directory: ".", Restart: RestartNever, Env: drawEnv()}
		if rapid.Bool().Draw(t, "shell") {
			s.Command.Shell = script.Draw(t, "command")
		} else {
			s.Command.Args = append([]string{script.Draw(t, "program")}, rapid.SliceOfN(text, 0, 3).Draw(t, "args")...)
		}
		out.Services = append(out.Services, s)
	}
	return out
}

func TestATemplateSurvivesItsJSONForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawTemplate(t)
		data, err := json.Marshal(want)
		require.NoError(t, err)

		parsed, err := Parse("json", data)
		require.NoError(t, err, "%s", data)
		require.Equal(t, want, parsed)
		require.Equal(t, want.Hash(), parsed.Hash())

		var decoded Template
		require.NoError(t, json.Unmarshal(data, &decoded))
		require.Equal(t, want, &decoded)
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	demo, err := builtin.ReadFile("builtin/demo.yaml")
	require.NoError(f, err)
	f.Add(demo)
	f.Add([]byte("name: x\nservices: [{name: a, command: [b, c]}]"))
	f.Add([]byte(`{"name": "x", "env": {"A": "\u003c\ud83d\ude00"}}`))
	f.Add([]byte("name: *a\n---\n? x\n: - |2-\n  y"))
	f.Fuzz(func(t *testing.T, data []byte) {
		parsed, err := Parse("fuzz", data)
		if err != nil {
			var syntax *SyntaxError
			require.True(t, errors.As(err, &syntax))
			require.NotContains(t, err.Error(), "\n")
			require.Positive(t, syntax.Line)
			require.LessOrEqual(t, syntax.Line, bytes.Count(data, []byte("\n"))+bytes.Count(data, []byte("\r"))+2)
			return
		}
		// What was accepted is accepted again in its stored form, and means the same.
		stored, err := json.Marshal(parsed)
		require.NoError(t, err)
		again, err := Parse("stored", stored)
		require.NoError(t, err, "%s", stored)
		require.Equal(t, parsed.Hash(), again.Hash())
	})
}
