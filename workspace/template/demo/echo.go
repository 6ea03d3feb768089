package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"go.uber.org/zap"
)

// copyBuffer is the size of the buffers that bodies are copied through.
const copyBuffer = 128 << 10

var buffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// echoed is what /echo saw of a request.
type echoed struct {
	Workspace string      `json:"workspace"`
	Method    string      `json:"method"`
	URI       string      `json:"uri"`
	Proto     string      `json:"proto"`
	Host      string      `json:"host"`
	Headers   http.Header `json:"headers"`
	Remote    string      `json:"remote"`
}

func (h *Handler) echoRequest(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, echoed{
		Workspace: h.name, Method: r.Method, URI: r.RequestURI, Proto: r.Proto, Host: r.Host, Headers: r.Header,
		Remote: r.RemoteAddr,
	})
}

// echoBody sends each part of the body back as soon as it is there, so that a client may converse.
func (h *Handler) echoBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength > MaxBody {
		refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", int64(MaxBody)))
		return
	}
	control := http.NewResponseController(w)
	if err := control.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		h.log.Warn("a body cannot be echoed while it arrives", zap.Error(err))
	}
	contentType := r.Header.Get("Content-Type")
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	w.Header().Set("Content-Type", contentType)
	// What a stranger posts must not run as a page of this origin.
	w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'")
	if r.ContentLength >= 0 {
		w.Header().Set("Content-Length", fmt.Sprint(r.ContentLength))
	}

	buf := buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(buf)
	body := http.MaxBytesReader(w, r.Body, MaxBody)
	for {
		n, err := body.Read(buf[:])
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			if err := control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return
			}
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			// The answer has begun: breaking it off is the only way to say that it is not whole.
			panic(http.ErrAbortHandler)
		}
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // a client that has gone needs no answer
}
