package coordinator

import (
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/token"
)

// getHealth says that the process is alive, and nothing else: it is open.
func (c *Coordinator) getHealth(w http.ResponseWriter, _ *http.Request, _ token.Claims) error {
	return word(w, http.StatusOK, "ok\n")
}

// getReady says whether the coordinator can do its work, and nothing else: it
// is open.
func (c *Coordinator) getReady(w http.ResponseWriter, _ *http.Request, _ token.Claims) error {
	if !c.ready() {
		return word(w, http.StatusServiceUnavailable, "not ready\n")
	}
	return word(w, http.StatusOK, "ok\n")
}

func word(w http.ResponseWriter, status int, text string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	// An error here is the caller's absence.
	_, _ = io.WriteString(w, text)
	return nil
}

func (c *Coordinator) getMetrics(w http.ResponseWriter, r *http.Request, _ token.Claims) error {
	promhttp.HandlerFor(c.cfg.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	return nil
}

func (c *Coordinator) getWhoami(w http.ResponseWriter, _ *http.Request, who token.Claims) error {
	return respond(w, http.StatusOK, api.Whoami{Subject: who.Subject, Scope: who.Scope, Expires: who.Expires})
}
