package coordinator

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/token"
)

const (
	// pingInterval is the time between pings, and how long each may take to be
	// answered.
	pingInterval = 15 * time.Second
	// sendTimeout is how long a message may take to be taken by the network.
	sendTimeout = 10 * time.Second
	// maxFromWatcher bounds what a watcher may send, which is nothing but pongs
	// and a close, in bytes.
	maxFromWatcher = 1 << 10
)

// watchWorkspace serves one agent-connection watch (docs/protocol.md, section 1).
func (c *Coordinator) watchWorkspace(w http.ResponseWriter, r *http.Request, who token.Claims) error {
	afterBuild, err := queryInt(r, "after_build_log", 0, maxNumber)
	if err != nil {
		return err
	}
	afterAgent, err := queryInt(r, "after_agent_log", 0, maxNumber)
	if err != nil {
		return err
	}
	agent := r.URL.Query().Get("agent_name")
	if len(agent) > api.MaxName {
		return badRequest("agent_name has %d bytes, at most %d are allowed", len(agent), api.MaxName)
	}
	ctx, leave, err := c.stream(r, &c.watches, "watch")
	if err != nil {
		return err
	}
	defer leave()
	rec, revision, err := c.workspaces.find(ctx, r.PathValue("ref"))
	if err == nil {
		// What was true before the watch began must not be taken back by it.
		err = storeError(c.workspaces.cache.WaitRevision(ctx, revision))
	}
	if err != nil {
		if c.closing.Err() != nil {
			return errShuttingDown
		}
		return err
	}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return nil // it has been answered
	}
	c.metrics.watches.Inc()
	defer c.metrics.watches.Dec()
	watch := &watchConn{c: c, ws: ws, workspace: rec.ID}
	watch.script = newScript(agent, afterBuild, afterAgent, c.logs, watch.send)
	watch.serve(ctx, agent, who.Expires.Add(token.Leeway))
	return nil
}

// watchConn is one watch.
type watchConn struct {
	c         *Coordinator
	ws        *websocket.Conn
	workspace string
	script    *script

	ponged atomic.Bool
	bells  map[string]watchBell
}

type watchBell struct {
	grown <-chan struct{}
	stop  func()
}

// errSilent: the watcher has not answered a ping.
var errSilent = errors.New("the watcher is silent")

// serve works until the watcher has gone, ctx ends, or there is nothing more to
// say.
func (w *watchConn) serve(ctx context.Context, agent string, expires time.Time) {
	ctx, cancel := context.WithCancel(ctx)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer cancel()
		w.listen()
	}()
	defer func() {
		w.ws.Close()
		<-gone
	}()

	var err error
	if agent != "" && agent != agentName {
		err = &events.WatchError{Code: events.WatchNameNotFound, Message: "the workspace has no agent of this name", Details: "it has: " + agentName}
	} else {
		err = w.run(ctx, expires)
	}
	var say *events.WatchError
	switch {
	case errors.Is(err, errSilent):
		w.close(websocket.CloseGoingAway, "no answer to a ping")
		return
	case errors.As(err, &say):
	case w.c.closing.Err() != nil:
		say = &events.WatchError{Code: events.WatchServerShutdown, Retryable: true, Message: errShuttingDown.Message}
	case unavailable(err) && ctx.Err() == nil:
		say = &events.WatchError{Code: events.WatchDatabase, Retryable: true, Message: "the server cannot reach its store"}
	case err != nil && ctx.Err() == nil:
		w.c.log.Error("a watch has failed", zap.String("workspace_id", w.workspace), zap.Error(err))
		say = &events.WatchError{Code: events.WatchInternal, Retryable: true, Message: "the server has failed to go on"}
	default:
		return // nobody is there
	}
	if w.send(events.WatchMessage{Error: say}) == nil {
		w.close(websocket.CloseNormalClosure, string(say.Code))
	}
}

// listen takes what the watcher sends until it has gone.
func (w *watchConn) listen() {
	w.ws.SetReadLimit(maxFromWatcher)
	w.ws.SetPongHandler(func(string) error {
		w.ponged.Store(true)
		return nil
	})
	for {
		if _, _, err := w.ws.NextReader(); err != nil {
			return
		}
	}
}

// run shows the record to the script whenever it may have changed.
func (w *watchConn) run(ctx context.Context, expires time.Time) error {
	changes := w.c.workspaces.cache.Subscribe(w.workspace)
	defer changes.Close()
	defer w.silence()
	ping := time.NewTicker(w.c.times.ping)
	defer ping.Stop()
	expiry := time.NewTimer(time.Until(expires))
	defer expiry.Stop()
	w.ponged.Store(true)
	for {
		rec, ok := w.c.workspaces.cached(w.workspace)
		if !ok { // its records are not kept for ever
			return &events.WatchError{Code: events.WatchNotFound, Message: "the workspace is gone"}
		}
		build, agent, err := w.hear(w.script.follows(&rec))
		if err == nil {
			err = w.script.show(ctx, &rec)
		}
		if err != nil {
			return err
		}
		for waiting := true; waiting; {
			waiting = false
			select {
			case <-ctx.Done():
				return ctx.Err()
			case _, ok := <-changes.C:
				if !ok {
					return errShuttingDown
				}
				changes.Take()
			case <-build:
			case <-agent:
			case <-expiry.C:
				return &events.WatchError{Code: events.WatchUnauthorized, Message: token.ErrExpired.Error()}
			case <-ping.C:
				if !w.ponged.Swap(false) {
					return errSilent
				}
				if err := w.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(sendTimeout)); err != nil {
					return err
				}
				waiting = true
			}
		}
	}
}

// hear listens to the logs of these names, at most two, and to no others.
func (w *watchConn) hear(names []string) (one, two <-chan struct{}, err error) {
	next := make(map[string]watchBell, len(names))
	for _, name := range names {
		b, ok := w.bells[name]
		if !ok {
			if b.grown, b.stop, err = w.c.bells.listen(name); err != nil {
				return nil, nil, err
			}
		}
		delete(w.bells, name)
		next[name] = b
	}
	w.silence()
	w.bells = next
	heard := make([]<-chan struct{}, 2)
	for i, name := range names {
		heard[i] = next[name].grown
	}
	return heard[0], heard[1], nil
}

func (w *watchConn) silence() {
	for _, b := range w.bells {
		b.stop()
	}
	w.bells = nil
}

func (w *watchConn) send(m events.WatchMessage) error {
	b, err := events.EncodeWatchMessage(m)
	if err != nil {
		return err
	}
	if err := w.ws.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	w.c.metrics.watchMessages.WithLabelValues(watchKind(m)).Inc()
	return w.ws.WriteMessage(websocket.TextMessage, b)
}

func watchKind(m events.WatchMessage) string {
	switch {
	case m.BuildUpdate != nil:
		return "build_update"
	case m.AgentUpdate != nil:
		return "agent_update"
	case m.BuildLog != nil:
		return "build_log"
	case m.AgentLog != nil:
		return "agent_log"
	}
	return "error"
}

func (w *watchConn) close(code int, reason string) {
	// An error here is the watcher's absence.
	_ = w.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(sendTimeout))
}
