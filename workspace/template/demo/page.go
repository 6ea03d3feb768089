package demo

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"

	"go.uber.org/zap"
)

//go:embed page/page.html
var pageHTML string

//go:embed page/page.css
var pageCSS string

//go:embed page/page.js
var pageJS string

var pageTemplate = template.Must(template.New("page").Parse(pageHTML))

// pagePolicy lets the page use its own style and script, talk to its own server, and nothing else.
var pagePolicy = "default-src 'none'; style-src '" + sourceHash(pageCSS) + "'; script-src '" + sourceHash(pageJS) +
	"'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func (h *Handler) page(w http.ResponseWriter, _ *http.Request) {
	var out bytes.Buffer
	err := pageTemplate.Execute(&out, struct {
		Name   string
		Style  template.CSS
		Script template.JS
	}{h.name, template.CSS(pageCSS), template.JS(pageJS)}) //nolint:gosec // both are part of the program
	if err != nil {
		h.log.Error("the page cannot be rendered", zap.Error(err))
		refuse(w, http.StatusInternalServerError, "the page cannot be rendered")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", pagePolicy)
	_, _ = w.Write(out.Bytes()) // a client that has gone needs no answer
}

// sourceHash is a hash source of a content security policy (CSP Level 3, section 2.3.1).
func sourceHash(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
