package demo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs the service on a loopback port and returns its address.
func start(t testing.TB, name string) string {
	t.Helper()
	ln, err := Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, ln, Config{WorkspaceName: name}) }()
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		cancel()
		require.NoError(t, <-served)
	})
	return ln.Addr().String()
}

func get(t testing.TB, url string) (*http.Response, string) {
	t.Helper()
	resp, err := http.Get(url)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp, string(body)
}

func TestThePageIsSelfContainedAndItsPolicyLetsItsOwnScriptRun(t *testing.T) {
	resp, body := get(t, "http://"+start(t, "my <workspace>"))
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, "text/html; charset=utf-8", resp.Header.Get("Content-Type"))
	require.Contains(t, body, "<h1>my &lt;workspace&gt;</h1>")
	require.NotRegexp(t, `(src|href|url\()\W*https?:`, body)

	policy := resp.Header.Get("Content-Security-Policy")
	require.Contains(t, policy, "default-src 'none'")
	for _, element := range []string{"style", "script"} {
		found := regexp.MustCompile(`(?s)<` + element + `>(.*)</` + element + `>`).FindStringSubmatch(body)
		require.Len(t, found, 2)
		require.Contains(t, policy, element+"-src '"+sourceHash(found[1])+"'")
	}
}

func TestEchoSaysWhatItSaw(t *testing.T) {
	addr := start(t, "demo")
	resp, body := get(t, "http://"+addr+"/echo?a=%20b")
	require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
	var got echoed
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	require.Equal(t, "demo", got.Workspace)
	require.Equal(t, "GET", got.Method)
	require.Equal(t, "/echo?a=%20b", got.URI)
	require.Equal(t, addr, got.Host)
	require.Equal(t, []string{"gzip"}, got.Headers["Accept-Encoding"])
}

func TestEchoReturnsABodyWhileItArrives(t *testing.T) {
	addr := start(t, "")
	body, feed := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/echo", body)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "text/html")
	go func() { _, _ = feed.Write([]byte("first")) }()
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, "text/html", resp.Header.Get("Content-Type"))
	require.Contains(t, resp.Header.Get("Content-Security-Policy"), "sandbox")

	got := make([]byte, 5)
	_, err = io.ReadFull(resp.Body, got)
	require.NoError(t, err)
	require.Equal(t, "first", string(got))
	go func() { _, _ = feed.Write([]byte("then the rest")); _ = feed.Close() }()
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "then the rest", string(rest))
}

func TestABrokenEchoIsNotMistakenForAWholeOne(t *testing.T) {
	conn, err := net.Dial("tcp", start(t, ""))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n")
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	got, err := io.ReadAll(resp.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, "hello", string(got))
}

func TestDownloadsAreTheSameEachTimeAndMatchTheirHash(t *testing.T) {
	addr := start(t, "")
	for _, size := range []string{"0", "1", "7", "8", "9", "1MiB", "1048577", "5MB", "16MiB"} {
		t.Run(size, func(t *testing.T) {
			resp, body := get(t, "http://"+addr+"/download?size="+size)
			require.Equal(t, http.StatusOK, resp.StatusCode)
			require.EqualValues(t, len(body), resp.ContentLength)
			want, ok := parseSize(size)
			require.True(t, ok)
			require.EqualValues(t, want, len(body))
			sum := sha256.Sum256([]byte(body))
			_, hash := get(t, "http://"+addr+"/download/sha256?size="+size)
			require.Equal(t, hex.EncodeToString(sum[:])+"\n", hash)
		})
	}
	_, again := get(t, "http://"+addr+"/download/sha256?size=16MiB")
	_, whole := get(t, "http://"+addr+"/download?size=16777216")
	sum := sha256.Sum256([]byte(whole))
	require.Equal(t, hex.EncodeToString(sum[:])+"\n", again, "also out of the cache")
	require.NotEqual(t, whole[:blockSize], whole[blockSize:2*blockSize])
}

func TestDownloadsTakeRanges(t *testing.T) {
	addr := start(t, "")
	_, whole := get(t, "http://"+addr+"/download?size=3000000")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/download?size=3000000", nil)
	require.NoError(t, err)
	req.Header.Set("Range", "bytes=1048570-2097160")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, http.StatusPartialContent, resp.StatusCode)
	part, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, whole[1048570:2097161], string(part))

	resp, err = http.Head("http://" + addr + "/download?size=64GiB")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.EqualValues(t, MaxBody, resp.ContentLength)
}

func TestUploadsAreCountedAndHashed(t *testing.T) {
	addr := start(t, "")
	sum := sha256.New()
	resp, err := http.Post("http://"+addr+"/upload", "", io.TeeReader(NewContent(3_000_000), sum))
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	var got received
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&got))
	require.EqualValues(t, 3_000_000, got.Bytes)
	require.Equal(t, hex.EncodeToString(sum.Sum(nil)), got.SHA256)
}

func TestWrongRequestsAreToldWhatWasExpected(t *testing.T) {
	addr := start(t, "")
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/download?size=65GiB":   {400, `size is "65GiB", expected at most 64GiB`},
		"/download?size=-1":      {400, `size is "-1"`},
		"/download/sha256?size=": {200, ""},
		"/stream?n=0":            {400, `n is "0", expected a number from 1 to 100000`},
		"/stream?interval=2h":    {400, `interval is "2h", expected a duration up to 1m0s`},
		"/upload":                {405, "Method Not Allowed"},
		"/nothing":               {404, "not found"},
		"/ws":                    {400, "Bad Request"},
		"/healthz":               {200, "ok\n"},
	} {
		resp, body := get(t, "http://"+addr+path)
		require.Equal(t, want.status, resp.StatusCode, path)
		require.Contains(t, body, want.body, path)
	}
}

func TestAStreamIsEventsForThoseWhoAcceptThemAndLinesForOthers(t *testing.T) {
	addr := start(t, "")
	resp, body := get(t, "http://"+addr+"/stream?n=3&interval=0s")
	require.Equal(t, "text/plain; charset=utf-8", resp.Header.Get("Content-Type"))
	require.Regexp(t, `^1 \S+Z\n2 \S+Z\n3 \S+Z\n$`, body)

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/stream?n=2&interval=1ms", nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "text/event-stream")
	resp, err = http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	events, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	require.Regexp(t, `^id: 1\ndata: 1 \S+Z\n\nid: 2\ndata: 2 \S+Z\n\nevent: end\ndata: end\n\n$`, string(events))
}

func TestAnyPartOfTheContentIsTheSameHoweverItIsRead(t *testing.T) {
	const size = 3*blockSize + 100
	var whole bytes.Buffer
	n, err := NewContent(size).WriteTo(&whole)
	require.NoError(t, err)
	require.EqualValues(t, size, n)
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.Int64Range(0, size).Draw(t, "from")
		buf := make([]byte, rapid.IntRange(1, 2*blockSize).Draw(t, "length"))
		c := NewContent(size)
		at, err := c.Seek(from, io.SeekStart)
		require.NoError(t, err)
		require.Equal(t, from, at)
		n, err := io.ReadFull(c, buf)
		want := whole.Bytes()[from:min(from+int64(len(buf)), size)]
		require.True(t, bytes.Equal(want, buf[:n]))
		require.Equal(t, n < len(buf), err != nil)
	})
}

func TestAnAbandonedHashIsNotWorkedOut(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var c hashCache
	_, err := c.of(ctx, MaxBody)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, c.hashes)
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"0", "10MB", "1GiB", "64GiB", "5kK", "i", "1Bi", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := parseSize(s)
		if !ok {
			require.Zero(t, n)
			return
		}
		require.GreaterOrEqual(t, n, int64(0))
		require.LessOrEqual(t, n, int64(MaxBody))
		again, ok := parseSize(fmt.Sprint(n))
		require.True(t, ok)
		require.Equal(t, n, again)
	})
}
