// Package demo is the service of the built-in demo template: a small web service to try a tunnel with. It has a
// page, an echo, a WebSocket echo, a stream, and uploads and downloads of any size with checkable content.
//
// It is an ordinary web service. It must not know of tunnels, agents, workspaces or the coordinator, apart from the
// name that it shows.
package demo

import (
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// MaxBody is the longest body that an endpoint reads or writes, in bytes.
	MaxBody = 64 << 30
	// maxMessage is the longest WebSocket message, in bytes.
	maxMessage = 1 << 20
)

// Config says what the service shows and where it logs. Its zero value is useful.
type Config struct {
	// WorkspaceName is shown on the page and by /echo; empty means "demo".
	WorkspaceName string
	// Logger takes what goes wrong on the service's own side; nil discards it. Requests are not logged.
	Logger *zap.Logger
}

// A Handler is the service. Its endpoints:
//
//	GET  /                        the page
//	GET  /echo                    what the service saw of the request, as JSON
//	POST /echo                    the request's body, while it arrives (also PUT, PATCH)
//	GET  /ws                      WebSocket: every message comes back; so do a close code and its reason
//	GET  /stream?n=10&interval=1s numbered server-sent events, or lines for a client that does not accept those
//	GET  /download?size=1GiB      pseudo-random content, always the same for the same size; takes ranges
//	GET  /download/sha256?size=   the SHA-256 of that content in hexadecimal
//	POST /upload                  the length and SHA-256 of the request's body, as JSON (also PUT)
//	GET  /healthz                 "ok"
type Handler struct {
	name    string
	log     *zap.Logger
	mux     *http.ServeMux
	hashes  hashCache
	started time.Time

	// closing is closed when WebSockets and streams are to end; they are counted in open.
	mu      sync.Mutex
	closing chan struct{}
	closed  bool
	open    sync.WaitGroup
}

// New makes a service. Its owner calls Close when no more requests will come.
func New(cfg Config) *Handler {
	h := &Handler{
		name: cfg.WorkspaceName, log: cfg.Logger, mux: http.NewServeMux(), started: time.Now(), closing: make(chan struct{}),
	}
	if h.name == "" {
		h.name = "demo"
	}
	if h.log == nil {
		h.log = zap.NewNop()
	}
	h.mux.HandleFunc("GET /{$}", h.page)
	h.mux.HandleFunc("GET /echo", h.echoRequest)
	for _, method := range []string{"POST", "PUT", "PATCH"} {
		h.mux.HandleFunc(method+" /echo", h.echoBody)
	}
	h.mux.HandleFunc("GET /ws", h.webSocket)
	h.mux.HandleFunc("GET /stream", h.stream)
	h.mux.HandleFunc("GET /download", h.download)
	h.mux.HandleFunc("GET /download/sha256", h.downloadHash)
	for _, method := range []string{"POST", "PUT"} {
		h.mux.HandleFunc(method+" /upload", h.upload)
	}
	h.mux.HandleFunc("GET /healthz", h.health)
	return h
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	h.mux.ServeHTTP(w, r)
}

// Close ends every WebSocket (with 1001, going away) and stream and waits for their end. It may be called again.
func (h *Handler) Close() {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.closing)
	}
	h.mu.Unlock()
	h.open.Wait()
}

// enter counts a WebSocket or stream in; it is false once the service closes. Its user calls h.open.Done.
func (h *Handler) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.open.Add(1)
	return true
}

func (h *Handler) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n")) // a client that has gone needs no answer
}

// refuse answers with a status and one sentence.
func refuse(w http.ResponseWriter, status int, sentence string) {
	http.Error(w, sentence, status)
}
