package demo

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// A peer is pinged every pingInterval and is gone when nothing has come from it for silenceLimit.
	pingInterval = 20 * time.Second
	silenceLimit = 60 * time.Second
	// controlTimeout bounds the writing of a control frame.
	controlTimeout = 5 * time.Second
	// closeTimeout is how long a peer may take to answer a close frame.
	closeTimeout = time.Second
)

var writeBuffers = new(sync.Pool)

// webSocket echoes messages until either side closes. The default origin check of the upgrader applies: a page of
// another origin is refused with 403, a client that is no browser is let in.
func (h *Handler) webSocket(w http.ResponseWriter, r *http.Request) {
	if !h.enter() {
		refuse(w, http.StatusServiceUnavailable, "the service is shutting down")
		return
	}
	defer h.open.Done()
	upgrader := websocket.Upgrader{
		HandshakeTimeout: controlTimeout,
		ReadBufferSize:   16 << 10,
		WriteBufferSize:  16 << 10,
		WriteBufferPool:  writeBuffers,
	}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	defer func() { _ = conn.Close() }()

	ended := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		h.watchWebSocket(conn, ended)
	}()
	defer func() { close(ended); <-watched }()

	conn.SetReadLimit(maxMessage)
	conn.SetCloseHandler(func(code int, reason string) error {
		return conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason),
			time.Now().Add(controlTimeout))
	})
	alive := func(string) error { return conn.SetReadDeadline(time.Now().Add(silenceLimit)) }
	conn.SetPongHandler(alive)
	_ = alive("") // a connection that takes no deadline fails at its first read
	echoMessages(conn, alive)
}

// echoMessages copies messages back, each as it arrives, until reading or writing fails.
func echoMessages(conn *websocket.Conn, alive func(string) error) {
	buf := buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(buf)
	for {
		kind, message, err := conn.NextReader()
		if err != nil {
			return
		}
		out, err := conn.NextWriter(kind)
		if err != nil {
			return
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{out}, message, buf[:]); err != nil {
			return
		}
		if out.Close() != nil || alive("") != nil {
			return
		}
	}
}

// watchWebSocket pings the peer, and closes the connection when the service closes. It ends with the connection.
func (h *Handler) watchWebSocket(conn *websocket.Conn, ended <-chan struct{}) {
	ping := time.NewTicker(pingInterval)
	defer ping.Stop()
	for {
		select {
		case <-ended:
			return
		case <-ping.C:
			err := conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(controlTimeout))
			if err != nil && !errors.Is(err, websocket.ErrCloseSent) {
				_ = conn.Close() // ends the reader
			}
		case <-h.closing:
			bye := websocket.FormatCloseMessage(websocket.CloseGoingAway, "the service is shutting down")
			_ = conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(controlTimeout))
			// The peer answers with its own close frame, which ends the reader; one that does not is cut off.
			answer := time.NewTimer(closeTimeout)
			defer answer.Stop()
			select {
			case <-ended:
			case <-answer.C:
				_ = conn.Close()
				<-ended
			}
			return
		}
	}
}
