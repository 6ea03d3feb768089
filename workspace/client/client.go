package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"
)

const (
	// maxBody bounds the body of an answer in bytes.
	maxBody = 32 << 20
	// tries is how often a request that may be repeated is sent.
	tries = 4
)

// TokenSource gives the bearer token for the next request. Its error is
// returned to the caller of the method as it is.
type TokenSource func(ctx context.Context) (string, error)

// StaticToken is the source of one token.
func StaticToken(token string) TokenSource {
	return func(context.Context) (string, error) { return token, nil }
}

// FixedURL is a base URL that does not move.
func FixedURL(u string) func() string { return func() string { return u } }

// Options are what a Client can be told; each zero value is useful.
type Options struct {
	// DialContext opens connections; nil means a net.Dialer's.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// UserAgent is sent with each request; empty means "tunneler".
	UserAgent string
	// Logger hears of retries at debug level; nil means none.
	Logger *zap.Logger
	// Random gives numbers in [0,1) for the jitter of retries; nil means
	// math/rand's.
	Random func() float64
}

// Client speaks to one coordinator. It is safe for concurrent use.
type Client struct {
	base   func() string
	token  TokenSource
	o      Options
	http   *http.Client
	retry  backoff
	logger *zap.Logger
}

// New makes a client of the coordinator at baseURL, which is asked anew for
// each request: an embedded server may move. A proxy is taken from the
// environment (HTTPS_PROXY and so on), except for loopback addresses.
func New(baseURL func() string, token TokenSource, o Options) *Client {
	if o.DialContext == nil {
		o.DialContext = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	if o.UserAgent == "" {
		o.UserAgent = "tunneler"
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	return &Client{
		base: baseURL, token: token, o: o, logger: o.Logger,
		retry: backoff{min: 100 * time.Millisecond, max: time.Second, random: o.Random},
		http: &http.Client{
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, DialContext: o.DialContext,
				TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: 60 * time.Second, MaxIdleConnsPerHost: 4,
				ResponseHeaderTimeout: 60 * time.Second, ForceAttemptHTTP2: true,
			},
			// The API never redirects; what does is not a coordinator.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close closes idle connections. Requests under way are not touched.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request is one call of the API.
type request struct {
	method, path string
	query        url.Values
	body         any // encoded as JSON; nil for none
	// repeatable says that sending it twice does what sending it once does.
	repeatable bool
}

func get(query url.Values, path ...string) request {
	return request{method: http.MethodGet, path: join(path...), query: query, repeatable: true}
}

func post(body any, path ...string) request {
	return request{method: http.MethodPost, path: join(path...), body: body}
}

func join(path ...string) string {
	var b strings.Builder
	b.WriteString("/api/v1")
	for _, p := range path {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(p))
	}
	return b.String()
}

// call sends r, again after transient failures if it may be repeated, and
// decodes the answer into out unless that is nil.
func (c *Client) call(ctx context.Context, r request, out any) error {
	for attempt := 1; ; attempt++ {
		err := c.once(ctx, r, out)
		if err == nil || !r.repeatable || attempt == tries || !transient(err) {
			return err
		}
		c.logger.Debug("request failed, trying again", zap.String("path", r.path), zap.Int("attempt", attempt), zap.Error(err))
		if sleep(ctx, c.retry.delay(attempt)) != nil {
			return err
		}
	}
}

func (c *Client) once(ctx context.Context, r request, out any) error {
	resp, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(out); err != nil {
		return transportError(ctx, resp.Request.URL.Redacted(), fmt.Errorf("the answer does not parse: %w", err))
	}
	return nil
}

// send gives the answer if it is a success, an error otherwise. The caller
// closes the body.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	req, err := c.newRequest(ctx, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		// The URL that url.Error adds is in UnreachableError already.
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err
		}
		return nil, transportError(ctx, c.base(), err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, errorFrom(resp)
	}
	return resp, nil
}

func (c *Client) newRequest(ctx context.Context, r request) (*http.Request, error) {
	var body io.Reader
	if r.body != nil {
		b, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	u := strings.TrimRight(c.base(), "/") + r.path
	if len(r.query) > 0 {
		u += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u, body)
	if err != nil {
		return nil, fmt.Errorf("bad server URL: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	return req, c.authorize(req)
}

func (c *Client) authorize(req *http.Request) error {
	token, err := c.token(req.Context())
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("User-Agent", c.o.UserAgent)
	return nil
}
