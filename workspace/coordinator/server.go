package coordinator

import (
	"net/http"
	"time"
)

// The limits of an HTTP connection. Streams and WebSockets set their own
// deadlines beyond that.
const (
	maxHeader         = 64 << 10
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 60 * time.Second
	writeTimeout      = 60 * time.Second // longer than requestTimeout
	idleTimeout       = 2 * time.Minute
)

// NewHTTPServer makes a server for h that bounds what a stranger can send and
// how long a connection may be idle. Its owner calls Serve with a listener.
func NewHTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
	}
}
