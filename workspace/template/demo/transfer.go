package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// defaultDownload is the size of a download that names none.
const defaultDownload = 1 << 20

func (h *Handler) download(w http.ResponseWriter, r *http.Request) {
	size, err := sizeParam(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	content := NewContent(size)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", fmt.Sprintf(`"demo-%d"`, size))
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="demo-%d.bin"`, size))
	if r.Method == http.MethodGet && r.Header.Get("Range") == "" && r.Header.Get("If-None-Match") == "" {
		w.Header().Set("Accept-Ranges", "bytes")
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		_, _ = content.WriteTo(w) // a block at a time; fails only when the client has gone
		return
	}
	// Ranges and conditions are worth the slower way, whose writes are of 32 KiB.
	http.ServeContent(w, r, "", time.Time{}, content)
}

func (h *Handler) downloadHash(w http.ResponseWriter, r *http.Request) {
	size, err := sizeParam(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	sum, err := h.hashes.of(r.Context(), size)
	if err != nil {
		return // the client has gone
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, sum+"\n")
}

// received is what /upload says of a body.
type received struct {
	Bytes   int64   `json:"bytes"`
	SHA256  string  `json:"sha256"`
	Seconds float64 `json:"seconds"`
}

func (h *Handler) upload(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	hash := sha256.New()
	buf := buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(buf)
	body := http.MaxBytesReader(w, r.Body, MaxBody)
	n, err := io.CopyBuffer(hash, struct{ io.Reader }{body}, buf[:])
	if err != nil {
		if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
			refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", int64(MaxBody)))
			return
		}
		refuse(w, http.StatusBadRequest, fmt.Sprintf("the body ended after %d bytes, before its announced end", n))
		return
	}
	writeJSON(w, received{Bytes: n, SHA256: hex.EncodeToString(hash.Sum(nil)), Seconds: time.Since(start).Seconds()})
}

// sizeParam reads ?size=, a number of bytes that may have a unit.
func sizeParam(r *http.Request) (int64, error) {
	s := r.FormValue("size")
	if s == "" {
		return defaultDownload, nil
	}
	size, ok := parseSize(s)
	if !ok || size > MaxBody {
		return 0, fmt.Errorf("size is %q, expected at most 64GiB, as bytes or with a unit: 1000000, 10MB, 1GiB", s)
	}
	return size, nil
}

// parseSize reads a number of bytes with an optional unit: k, M, G (powers of 1000), Ki, Mi, Gi (powers of 1024), with
// or without a final B.
func parseSize(s string) (int64, bool) {
	digits := strings.TrimRight(s, "kKMGiB")
	n, err := strconv.ParseUint(digits, 10, 40)
	if err != nil {
		return 0, false
	}
	units := map[string]int64{
		"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30,
	}
	unit, ok := units[strings.TrimSuffix(s[len(digits):], "B")]
	if !ok || int64(n) > MaxBody/unit {
		return 0, false
	}
	return int64(n) * unit, true
}

// A hashCache keeps the hashes of the contents that were asked for. One is worked out at a time, so that requests for
// many sizes cost one processor at most.
type hashCache struct {
	once   sync.Once
	turn   chan struct{}
	hashes map[int64]string
}

// maxHashes bounds the cache.
const maxHashes = 256

func (c *hashCache) of(ctx context.Context, size int64) (string, error) {
	c.once.Do(func() {
		c.turn = make(chan struct{}, 1)
		c.hashes = make(map[int64]string)
	})
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if sum, ok := c.hashes[size]; ok {
		return sum, nil
	}
	hash := sha256.New()
	if _, err := io.Copy(untilDone{ctx, hash}, NewContent(size)); err != nil {
		return "", err
	}
	if len(c.hashes) >= maxHashes {
		clear(c.hashes)
	}
	sum := hex.EncodeToString(hash.Sum(nil))
	c.hashes[size] = sum
	return sum, nil
}

// untilDone is a writer that fails once its context is done.
type untilDone struct {
	ctx context.Context
	w   io.Writer
}

func (u untilDone) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.w.Write(p)
}
