package channel

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// dialTimeout bounds the connect together with the HTTP handshake.
const dialTimeout = 10 * time.Second

// dial makes the WebSocket.
func (c *Client) dial(ctx context.Context, refused bool) (*websocket.Conn, error) {
	raw, err := c.opts.URL(ctx)
	if err != nil {
		return nil, fmt.Errorf("find the server: %w", err)
	}
	address, err := websocketURL(raw)
	if err != nil {
		return nil, err
	}
	token, err := c.opts.Token(ctx, refused)
	if err != nil {
		return nil, fmt.Errorf("get a token: %w", err)
	}
	dialer := websocket.Dialer{
		HandshakeTimeout: dialTimeout,
		NetDialContext:   c.opts.DialContext,
		TLSClientConfig:  c.opts.TLS,
	}
	if c.opts.DialContext == nil {
		dialer.Proxy = http.ProxyFromEnvironment
	}
	ws, resp, err := dialer.DialContext(ctx, address, http.Header{"Authorization": {"Bearer " + token}})
	if err == nil {
		return ws, nil
	}
	if resp != nil {
		defer resp.Body.Close()
		return nil, handshakeError(resp)
	}
	return nil, fmt.Errorf("connect to the server: %w", err)
}

// websocketURL is the address with the scheme that a WebSocket has (RFC 6455,
// section 3).
func websocketURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("bad server address: %w", err)
	}
	switch u.Scheme {
	case "http":
		u.Scheme = "ws"
	case "https":
		u.Scheme = "wss"
	case "ws", "wss":
	default:
		return "", fmt.Errorf("bad server address %q: expected one with http, https, ws or wss", u.Redacted())
	}
	if u.Host == "" || u.User != nil {
		return "", fmt.Errorf("bad server address %q: expected a host, and no user", u.Redacted())
	}
	u.Fragment = ""
	return u.String(), nil
}

// maxErrorBody bounds what is read of a refusal's body in bytes.
const maxErrorBody = 1024

// handshakeError reads the server's refusal.
func handshakeError(resp *http.Response) *HandshakeError {
	e := &HandshakeError{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	var body struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if json.Unmarshal(b, &body) == nil {
		e.Code, e.Message = body.Code, body.Message
	}
	return e
}

// retryAfter reads the header of that name: seconds or a date (RFC 9110,
// section 10.2.3); zero for none.
func retryAfter(header string) time.Duration {
	header = strings.TrimSpace(header)
	if seconds, err := strconv.ParseUint(header, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}
