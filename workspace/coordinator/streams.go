package coordinator

import (
	"context"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"

	"github.com/tunneler/tunneler/workspace/api"
)

// tracker counts goroutines in until it is closed. In contrast to a bare
// WaitGroup, one may come while it is being waited for: it is turned away.
type tracker struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// enter counts a goroutine in; if ok, it calls leave when it is done.
func (t *tracker) enter() (leave func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, false
	}
	t.wg.Add(1)
	return t.wg.Done, true
}

// wait turns away who comes from now on, and waits for the others.
func (t *tracker) wait() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.wg.Wait()
}

// stream counts a request in that goes on for long, in one of a bounded number
// of places. The context ends with the request or when the coordinator closes;
// the caller calls leave.
func (c *Coordinator) stream(r *http.Request, places *slots, kind string) (ctx context.Context, leave func(), err error) {
	done, ok := c.streams.enter()
	if !ok {
		return nil, nil, errShuttingDown
	}
	if !places.take() {
		done()
		return nil, nil, &api.Error{
			Code: api.CodeTooMany, Message: "this server has no room for another " + kind, Hint: "try again later, or at another server",
		}
	}
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(c.closing, cancel)
	return ctx, func() {
		stop()
		cancel()
		places.release()
		done()
	}, nil
}

// writeBuffers are shared by all WebSockets: an idle one has none.
var writeBuffers sync.Pool

// upgrader answers the upgrade to a WebSocket (RFC 6455, section 4.2). A
// browser's page from another origin is refused.
var upgrader = websocket.Upgrader{
	WriteBufferPool: &writeBuffers, WriteBufferSize: 4 << 10,
	Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
		e := badRequest("%v", reason)
		if status == http.StatusForbidden {
			e = &api.Error{Code: api.CodeForbidden, Message: "a WebSocket from another origin is not allowed"}
		}
		// An error here is the caller's absence.
		_ = respond(w, statuses[e.Code], e)
	},
}
