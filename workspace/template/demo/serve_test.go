package demo

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
)

func dialWS(t testing.TB, addr string, header http.Header) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	conn, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+addr+"/ws", header)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
	}
	return conn, resp, err
}

func TestAWebSocketEchoesMessagesOfBothKindsAndItsCloseCode(t *testing.T) {
	conn, _, err := dialWS(t, start(t, ""), nil)
	require.NoError(t, err)
	for _, m := range []struct {
		kind int
		data []byte
	}{
		{websocket.TextMessage, []byte("grüße")},
		{websocket.BinaryMessage, nil},
		{websocket.BinaryMessage, bytes.Repeat([]byte{0, 255}, maxMessage/2)},
	} {
		require.NoError(t, conn.WriteMessage(m.kind, m.data))
		kind, data, err := conn.ReadMessage()
		require.NoError(t, err)
		require.Equal(t, m.kind, kind)
		require.True(t, bytes.Equal(m.data, data))
	}
	bye := websocket.FormatCloseMessage(4321, "enough")
	require.NoError(t, conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Minute)))
	_, _, err = conn.ReadMessage()
	require.Equal(t, &websocket.CloseError{Code: 4321, Text: "enough"}, err)
}

func TestAWebSocketRefusesOtherOriginsAndLongMessages(t *testing.T) {
	addr := start(t, "")
	_, resp, err := dialWS(t, addr, http.Header{"Origin": {"http://evil.example"}})
	require.ErrorIs(t, err, websocket.ErrBadHandshake)
	require.Equal(t, http.StatusForbidden, resp.StatusCode)

	conn, _, err := dialWS(t, addr, http.Header{"Origin": {"http://" + addr}})
	require.NoError(t, err)
	require.NoError(t, conn.WriteMessage(websocket.BinaryMessage, make([]byte, maxMessage+1)))
	for err == nil {
		_, _, err = conn.ReadMessage()
	}
	require.True(t, websocket.IsCloseError(err, websocket.CloseMessageTooBig), "%v", err)
}

func TestServeEndsWithItsContextAndSaysGoodbye(t *testing.T) {
	ln, err := Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, ln, Config{}) }()

	conn, _, err := dialWS(t, addr, nil)
	require.NoError(t, err)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("http://" + addr + "/stream?n=100&interval=1m")
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewReader(resp.Body)
	_, err = lines.ReadString('\n')
	require.NoError(t, err)

	cancel()
	_, _, err = conn.ReadMessage()
	require.Equal(t, &websocket.CloseError{Code: websocket.CloseGoingAway, Text: "the service is shutting down"}, err)
	_, err = lines.ReadString('\n')
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, <-served)
	_, err = net.Dial("tcp", addr)
	require.Error(t, err)
}

func TestAClosedHandlerTakesNoNewStreams(t *testing.T) {
	h := New(Config{})
	h.Close()
	h.Close()
	for _, path := range []string{"/ws", "/stream"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
	}
}

func TestServeFailsWithItsListener(t *testing.T) {
	ln, err := Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	require.ErrorIs(t, Serve(t.Context(), ln, Config{}), net.ErrClosed)
}

func TestListenTakesASocketThatADeadProcessLeft(t *testing.T) {
	dir, err := os.MkdirTemp("", "demo") // short: a socket's path is limited
	require.NoError(t, err)
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "run", "web.sock")

	ln, err := Listen(t.Context(), "unix:"+path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.ModeSocket|0o600, info.Mode())

	_, err = Listen(t.Context(), "unix:"+path)
	require.ErrorIs(t, err, fs.ErrExist)

	ln.(*net.UnixListener).SetUnlinkOnClose(false) // as if it had been killed
	require.NoError(t, ln.Close())
	require.FileExists(t, path)
	ln, err = Listen(t.Context(), "unix:"+path)
	require.NoError(t, err)
	require.NoError(t, ln.Close())

	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
	_, err = Listen(t.Context(), "unix:"+path)
	require.ErrorIs(t, err, fs.ErrExist)
	kept, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "precious", string(kept))
}

// BenchmarkDownload compares a download with what the loopback carries of the same writes without HTTP.
func BenchmarkDownload(b *testing.B) {
	const size = 256 << 20
	b.Run("http", func(b *testing.B) {
		addr := start(b, "")
		b.SetBytes(size)
		for b.Loop() {
			conn, err := net.Dial("tcp", addr)
			require.NoError(b, err)
			_, err = io.WriteString(conn, "GET /download?size=256MiB HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			require.NoError(b, err)
			drain(b, conn)
		}
	})
	b.Run("loopback", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		defer func() { _ = ln.Close() }()
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = NewContent(size).WriteTo(conn)
				_ = conn.Close()
			}
		}()
		b.SetBytes(size)
		for b.Loop() {
			conn, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(b, err)
			drain(b, conn)
		}
	})
}

// drain reads a connection to its end.
func drain(b *testing.B, conn net.Conn) {
	b.Helper()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, make([]byte, 256<<10))
	require.NoError(b, err)
	require.GreaterOrEqual(b, n, int64(256<<20))
	require.NoError(b, conn.Close())
}
