package agent

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/template"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// workspaceDir is short: a Unix socket's path is limited.
func workspaceDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "ag")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func listenAt(t *testing.T, network, addr string) net.Listener {
	l, err := net.Listen(network, addr)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func TestWhatATargetMeans(t *testing.T) {
	dir, outside := workspaceDir(t), workspaceDir(t)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "run"), 0o700))
	listenAt(t, "unix", filepath.Join(dir, "run", "web.sock"))
	listenAt(t, "unix", filepath.Join(outside, "other.sock"))
	require.NoError(t, os.Symlink(filepath.Join(outside, "other.sock"), filepath.Join(dir, "way-out.sock")))
	tcp := listenAt(t, "tcp", "127.0.0.1:0")
	_, port, err := net.SplitHostPort(tcp.Addr().String())
	require.NoError(t, err)
	free := listenAt(t, "tcp", "127.0.0.1:0")
	_, dead, err := net.SplitHostPort(free.Addr().String())
	require.NoError(t, err)
	free.Close()

	web, err := template.ParseTarget("unix:run/web.sock")
	require.NoError(t, err)
	ts := &targets{dir: dir, manifest: api.Manifest{WorkspaceName: "w", Template: template.Template{Ports: []template.Port{{Port: 3000, Target: web}}}}}

	for name, c := range map[string]struct {
		network events.Network
		target  string
		code    events.ReplyCode
		text    string
	}{
		"a port of the workspace":          {events.NetworkTCP, "localhost:" + port, events.ReplyOK, ""},
		"the same with no host":            {events.NetworkTCP, ":" + port, events.ReplyOK, ""},
		"the same by the workspace's name": {events.NetworkTCP, "w:" + port, events.ReplyOK, ""},
		"the same by a loopback address":   {events.NetworkTCP, "127.0.0.1:" + port, events.ReplyOK, ""},
		"a port that the template maps":    {events.NetworkTCP, "localhost:3000", events.ReplyOK, ""},
		"a port where nothing listens":     {events.NetworkTCP, "localhost:" + dead, events.ReplyRefused, "nothing listens on port " + dead + " in workspace w"},
		"a socket in the workspace":        {events.NetworkUnix, "run/web.sock", events.ReplyOK, ""},
		"a socket that is not there":       {events.NetworkUnix, "run/no.sock", events.ReplyRefused, "there is no socket run/no.sock in workspace w"},
		"a socket outside":                 {events.NetworkUnix, filepath.Join(outside, "other.sock"), events.ReplyDenied, "sockets outside the workspace's directory are not reachable"},
		"a way out by dots":                {events.NetworkUnix, "../" + filepath.Base(outside) + "/other.sock", events.ReplyDenied, "sockets outside the workspace's directory are not reachable"},
		"a way out by a link":              {events.NetworkUnix, "way-out.sock", events.ReplyDenied, "sockets outside the workspace's directory are not reachable"},
		"a target without a port":          {events.NetworkTCP, "localhost", events.ReplyBadRequest, `bad target "localhost": expected host:port`},
		"a port that is no number":         {events.NetworkTCP, "localhost:http", events.ReplyBadRequest, `bad port in target "localhost:http"`},
		"a port out of range":              {events.NetworkTCP, "localhost:70000", events.ReplyBadRequest, `bad port in target "localhost:70000"`},
		"port 0":                           {events.NetworkTCP, "localhost:0", events.ReplyBadRequest, `bad port in target "localhost:0"`},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := ts.dial(t.Context(), events.OpenHeader{Network: c.network, Target: c.target})
			if c.code == events.ReplyOK {
				require.NoError(t, err)
				conn.Close()
				return
			}
			var reply *events.Reply
			require.ErrorAs(t, err, &reply)
			require.Equal(t, c.code, reply.Code)
			require.Equal(t, c.text, reply.Text)
		})
	}
}

func TestASocketOutsideIsReachedIfTheAgentIsToldSo(t *testing.T) {
	outside := filepath.Join(workspaceDir(t), "other.sock")
	listenAt(t, "unix", outside)
	ts := &targets{dir: workspaceDir(t), outsideSockets: true}
	conn, err := ts.dial(t.Context(), events.OpenHeader{Network: events.NetworkUnix, Target: outside})
	require.NoError(t, err)
	conn.Close()
}

func TestASocketMayLieDeeperThanTheKernelTakesAPath(t *testing.T) {
	dir := workspaceDir(t)
	deep := dir
	for len(deep) < 2*maxSocketPath {
		deep = filepath.Join(deep, "a-directory-with-a-long-name")
		require.NoError(t, os.Mkdir(deep, 0o700))
	}
	t.Chdir(deep) // as a service that listens at a relative path
	listenAt(t, "unix", "web.sock")
	rel, err := filepath.Rel(dir, filepath.Join(deep, "web.sock"))
	require.NoError(t, err)
	ts := &targets{dir: dir}
	for _, wd := range []string{deep, "/"} {
		if wd == "/" && runtime.GOOS != "linux" {
			continue // elsewhere only what lies near the working directory is reached
		}
		t.Chdir(wd)
		conn, err := ts.dial(t.Context(), events.OpenHeader{Network: events.NetworkUnix, Target: rel})
		require.NoError(t, err, wd)
		conn.Close()
	}
}

func TestAPortOfOneFamilyIsFound(t *testing.T) {
	ts := &targets{manifest: api.Manifest{WorkspaceName: "w"}}
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		l = listenAt(t, "tcp", "127.0.0.1:0") // a host without IPv6: then the other way round
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	for _, host := range []string{"", "localhost", "LOCALHOST", "127.0.0.1", "[::1]", "w", "workspace"} {
		conn, err := ts.dial(t.Context(), events.OpenHeader{Network: events.NetworkTCP, Target: host + ":" + port})
		require.NoError(t, err, host)
		conn.Close()
	}
}

func TestAFailedDialIsExplained(t *testing.T) {
	opErr := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	for name, c := range map[string]struct {
		err  error
		want events.Reply
	}{
		"refused":          {opErr(syscall.ECONNREFUSED), events.Reply{Code: events.ReplyRefused, Text: "nothing listens on db:5432"}},
		"no socket":        {opErr(syscall.ENOENT), events.Reply{Code: events.ReplyRefused, Text: "nothing listens on db:5432"}},
		"no socket at all": {opErr(syscall.ENOTSOCK), events.Reply{Code: events.ReplyRefused, Text: "nothing listens on db:5432"}},
		"not resolved":     {&net.OpError{Op: "dial", Err: &net.DNSError{Name: "db", IsNotFound: true}}, events.Reply{Code: events.ReplyUnreachable, Text: "the workspace cannot resolve db"}},
		"no route":         {opErr(syscall.EHOSTUNREACH), events.Reply{Code: events.ReplyUnreachable, Text: "the workspace cannot reach db:5432: no route to host"}},
		"no answer":        {opErr(syscall.ETIMEDOUT), events.Reply{Code: events.ReplyTimeout, Text: "no answer from db:5432"}},
		"no time":          {context.DeadlineExceeded, events.Reply{Code: events.ReplyTimeout, Text: "no answer from db:5432"}},
		"not allowed":      {opErr(syscall.EACCES), events.Reply{Code: events.ReplyDenied, Text: "the agent may not connect to db:5432"}},
		"no file left":     {opErr(syscall.EMFILE), events.Reply{Code: events.ReplyTooMany, Text: "the agent has too many open files"}},
	} {
		require.Equal(t, &c.want, explainDial(c.err, "db:5432"), name)
	}
}

func TestPropertyLinesDoNotDependOnThePieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOf(rapid.SampledFrom([]byte("ab\n\r\xc3\xa9"))).Draw(t, "text")
		if rapid.Bool().Draw(t, "long") {
			text = append(text, bytes.Repeat([]byte("é"), maxLine)...)
		}
		split := func(pieces [][]byte) (lines []string) {
			l := &lineSplitter{emit: func(s string) { lines = append(lines, s) }}
			for _, p := range pieces {
				l.write(p)
			}
			l.flush()
			return lines
		}
		var pieces [][]byte
		for rest := text; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		lines := split(pieces)
		require.Equal(t, split([][]byte{text}), lines)
		for _, line := range lines {
			require.NotContains(t, line, "\n")
			require.LessOrEqual(t, len(line), 3*maxLine) // a byte that is no text takes three
		}
	})
}

func TestADialHasNoLongerThanItsOpenerGivesIt(t *testing.T) {
	ts := &targets{dir: t.TempDir(), manifest: api.Manifest{WorkspaceName: "w"}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := ts.dial(ctx, events.OpenHeader{Network: events.NetworkTCP, Target: "localhost:" + strconv.Itoa(9), Deadline: time.Hour})
	require.Error(t, err)
}

func TestATokenFileThatOthersCanReadIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(path, []byte("secret\n"), 0o644))
	_, err := newCredentials(&Config{TokenFile: path})
	require.ErrorContains(t, err, "can be read by others")
	require.NotContains(t, err.Error(), "secret\n")
	require.NoError(t, os.Chmod(path, 0o600))
	c, err := newCredentials(&Config{TokenFile: path})
	require.NoError(t, err)
	require.Equal(t, "secret", c.current())
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.ErrorContains(t, c.load(), "is empty")
}

func TestTheLifeOfATokenIsReadFromIt(t *testing.T) {
	issued, expires := lifeOf("e30.eyJpYXQiOjEwMDAsImV4cCI6MzAwMH0.sig")
	require.Equal(t, int64(1000), issued.Unix())
	require.Equal(t, int64(3000), expires.Unix())
	for _, bad := range []string{"", "a.b.c", "no token at all", "e30.e30.e30"} {
		issued, expires = lifeOf(bad)
		require.Equal(t, 48*time.Hour, expires.Sub(issued), "%q is asked about again in a day", bad)
	}
}

func TestLinesOfOutput(t *testing.T) {
	var got []string
	l := &lineSplitter{emit: func(s string) { got = append(got, s) }}
	for _, piece := range []string{"on", "e\r\ntwo\n\nbad \xff by", "te\nno", " end"} {
		l.write([]byte(piece))
	}
	l.flush()
	l.flush()
	require.Equal(t, []string{"one", "two", "", "bad \uFFFD byte", "no end"}, got)
}

func TestAServerThatMoves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server")
	c := &Config{ServerFile: path}
	_, err := c.serverURL()
	require.True(t, errors.Is(err, os.ErrNotExist))
	require.NoError(t, os.WriteFile(path, []byte(`{"url":"http://127.0.0.1:1/"}`), 0o600))
	url, err := c.serverURL()
	require.NoError(t, err)
	require.Equal(t, "http://127.0.0.1:1", url)
	require.NoError(t, os.WriteFile(path, []byte(`{}`), 0o600))
	_, err = c.serverURL()
	require.Error(t, err)
}

func TestAnAgentOfALoopbackServerListensOnLoopbackAlone(t *testing.T) {
	for _, addr := range (&Config{Server: "http://127.0.0.1:7443"}).listenAddrs() {
		host, _, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		require.True(t, net.ParseIP(host).IsLoopback(), addr)
	}
	require.Equal(t, []string{":0"}, (&Config{Server: "https://coordinator.example"}).listenAddrs())
	require.Equal(t, []string{"10.0.0.1:0"}, (&Config{Server: "https://c.example", Listen: []string{"10.0.0.1:0"}}).listenAddrs())
}
