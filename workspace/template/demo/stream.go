package demo

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Limits of /stream.
const (
	maxEvents        = 100_000
	maxInterval      = time.Minute
	defaultEvents    = 10
	defaultInterval  = time.Second
	eventTimeFormat  = time.RFC3339Nano
	eventStreamMedia = "text/event-stream"
)

// stream sends n numbered lines, one each interval, the first at once: as server-sent events to a client that accepts
// those (WHATWG HTML, section 9.2), else as plain text.
func (h *Handler) stream(w http.ResponseWriter, r *http.Request) {
	n, interval, err := streamParams(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	if !h.enter() {
		refuse(w, http.StatusServiceUnavailable, "the service is shutting down")
		return
	}
	defer h.open.Done()

	line := func(i int) string {
		return fmt.Sprintf("%d %s\n", i, time.Now().UTC().Format(eventTimeFormat))
	}
	end := ""
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if strings.Contains(r.Header.Get("Accept"), eventStreamMedia) {
		w.Header().Set("Content-Type", eventStreamMedia)
		plain := line
		line = func(i int) string { return fmt.Sprintf("id: %d\ndata: %s\n", i, plain(i)) }
		end = "event: end\ndata: end\n\n" // tells an EventSource not to reconnect
	}
	w.Header().Set("X-Accel-Buffering", "no")

	control := http.NewResponseController(w)
	tick := time.NewTimer(0)
	defer tick.Stop()
	for i := 1; i <= n; i++ {
		select {
		case <-tick.C:
			tick.Reset(interval)
		case <-r.Context().Done():
			return
		case <-h.closing:
			return
		}
		if _, err := w.Write([]byte(line(i))); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
			return
		}
	}
	_, _ = w.Write([]byte(end)) // a client that has gone needs no end
}

func streamParams(r *http.Request) (n int, interval time.Duration, err error) {
	n, interval = defaultEvents, defaultInterval
	if s := r.FormValue("n"); s != "" {
		if n, err = strconv.Atoi(s); err != nil || n < 1 || n > maxEvents {
			return 0, 0, fmt.Errorf("n is %q, expected a number from 1 to %d", s, maxEvents)
		}
	}
	if s := r.FormValue("interval"); s != "" {
		if interval, err = time.ParseDuration(s); err != nil || interval < 0 || interval > maxInterval {
			return 0, 0, fmt.Errorf("interval is %q, expected a duration up to %v such as 100ms", s, maxInterval)
		}
	}
	return n, interval, nil
}
