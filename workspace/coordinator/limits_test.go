package coordinator

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/workspace/api"
)

// endless is a body of 100 MB that counts how much of it is taken.
type endless struct{ left, taken int }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), e.left)
	for i := range n {
		p[i] = ' '
	}
	e.left -= n
	e.taken += n
	return n, nil
}

func TestABodyOf100MBIsNotRead(t *testing.T) {
	r := newSite(t).start()
	const size = 100 << 20
	t.Run("when it says how long it is", func(t *testing.T) {
		conn := r.dial()
		_, err := fmt.Fprintf(conn, "POST %s/workspaces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", apiPrefix, r.site.token(api.ScopeOwner), size)
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
		require.True(t, resp.Close)
		require.Equal(t, api.CodeTooLarge, errorIn(t, resp).Code)
	})
	t.Run("when it does not", func(t *testing.T) {
		conn := r.dial()
		_, err := fmt.Fprintf(conn, "POST %s/workspaces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n", apiPrefix, r.site.token(api.ScopeOwner))
		require.NoError(t, err)
		body := &endless{left: size}
		done := make(chan struct{})
		go func() {
			defer close(done)
			buf := make([]byte, 64<<10)
			for {
				n, err := body.Read(buf)
				if err != nil {
					return
				}
				if _, err := fmt.Fprintf(conn, "%x\r\n%s\r\n", n, buf[:n]); err != nil {
					return
				}
			}
		}()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
		conn.Close()
		<-done
		require.Less(t, body.taken, size/2)
	})
}

func TestAHeaderOf1MiBIsRefused(t *testing.T) {
	r := newSite(t).start()
	conn := r.dial()
	go func() {
		_, _ = fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n", strings.Repeat("a", 1<<20))
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
}

func TestNewHTTPServerBoundsEverything(t *testing.T) {
	srv := NewHTTPServer(http.NotFoundHandler())
	require.NotZero(t, srv.ReadHeaderTimeout)
	require.NotZero(t, srv.ReadTimeout)
	require.NotZero(t, srv.IdleTimeout)
	require.NotZero(t, srv.MaxHeaderBytes)
	require.Greater(t, srv.WriteTimeout, requestTimeout)
	require.Greater(t, requestTimeout, connectTimeout)
}

// Whatever a body is, it is decoded or refused as a bad request.
func FuzzBodies(f *testing.F) {
	for _, seed := range []string{
		`{"name":"demo","template":"demo"}`, `{"transition":"start"}`, `{"key_hash":"aa","candidates":["[::1]:1"]}`,
		`{"name":1}`, `{"nome":"x"}`, `[]`, `null`, `{}{}`, "", "{",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, v := range []any{new(api.CreateWorkspace), new(api.CreateBuild), new(api.Connect), new(api.CheckTemplate), new(api.CreateAgentToken)} {
			err := decode(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(string(body))), v)
			if in, ok := v.(*api.Connect); ok && err == nil {
				err = checkConnect(*in)
			}
			var e *api.Error
			if err != nil && (!errors.As(err, &e) || e.Code != api.CodeBadRequest) {
				t.Fatalf("%T from %q: %v", v, body, err)
			}
		}
	})
}
