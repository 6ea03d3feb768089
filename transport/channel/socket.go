package channel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tunneler/tunneler/events"
)

// The times of the protocol (docs/protocol.md, section 2).
const (
	helloTimeout  = 10 * time.Second
	writeTimeout  = 10 * time.Second
	pingInterval  = 15 * time.Second
	pongTimeout   = 15 * time.Second
	clientSilence = 45 * time.Second
	serverSilence = pingInterval + pongTimeout

	// farewell is how long the other side may take to answer a close frame
	// (RFC 6455, section 7.1.2).
	farewell = 2 * time.Second
)

// keptBuffer is the largest receive buffer, in bytes, that a connection keeps
// for its next message.
const keptBuffer = 64 << 10

// socket is a WebSocket that carries the channel's messages within its limits.
// One goroutine reads and one writes.
type socket struct {
	ws *websocket.Conn
	// silence is how long nothing may be heard, not even a part of a message.
	silence time.Duration
	// until is when the time for a hello is over; zero without such a limit.
	until time.Time
	buf   bytes.Buffer
}

func newSocket(ws *websocket.Conn, silence time.Duration) *socket {
	s := &socket{ws: ws, silence: silence}
	ws.SetReadLimit(events.MaxChannelMessage)
	// Control frames do not come back from a read, so they count here.
	ws.SetPingHandler(func(data string) error {
		s.heard()
		// A pong that cannot be sent shows as a failed write or as silence.
		_ = ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(writeTimeout))
		return nil
	})
	ws.SetPongHandler(func(string) error {
		s.heard()
		return nil
	})
	return s
}

// heard gives the other side until the end of another silence.
func (s *socket) heard() {
	deadline := time.Now().Add(s.silence)
	if !s.until.IsZero() && s.until.Before(deadline) {
		deadline = s.until
	}
	_ = s.ws.SetReadDeadline(deadline)
}

// readBefore is read with a deadline that no sign of life puts off.
func (s *socket) readBefore(deadline time.Time) (events.ChannelMessage, error) {
	s.until = deadline
	defer func() { s.until = time.Time{} }()
	return s.read()
}

// read reads the next message. The error ends the connection: a
// *websocket.CloseError for the other side's close, ErrSilent, one that wraps
// ErrProtocol, or the connection's.
func (s *socket) read() (events.ChannelMessage, error) {
	s.heard() // anew: whoever handled the last message may have taken their time
	kind, r, err := s.ws.NextReader()
	if err != nil {
		return nil, readError(err)
	}
	if kind != websocket.TextMessage {
		return nil, s.broken(websocket.CloseUnsupportedData, errors.New("a binary message"))
	}
	if s.buf.Cap() > keptBuffer {
		s.buf = bytes.Buffer{}
	}
	s.buf.Reset()
	if _, err := s.buf.ReadFrom(aliveReader{r, s.heard}); err != nil {
		return nil, readError(err)
	}
	m, err := events.DecodeChannelMessage(s.buf.Bytes())
	if err != nil {
		return nil, s.broken(websocket.CloseInvalidFramePayloadData, err)
	}
	return m, nil
}

// aliveReader takes each part of a message as a sign of life: on a slow line a
// large one takes longer than silence may last.
type aliveReader struct {
	r     io.Reader
	heard func()
}

func (r aliveReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if n > 0 {
		r.heard()
	}
	return n, err
}

// readError finds this package's word for an error of a read.
func readError(err error) error {
	timeout, ok := errors.AsType[net.Error](err) // the WebSocket hides os.ErrDeadlineExceeded
	switch {
	case ok && timeout.Timeout():
		return ErrSilent
	case errors.Is(err, websocket.ErrReadLimit):
		return fmt.Errorf("%w: a message of more than %d bytes", ErrProtocol, events.MaxChannelMessage)
	}
	return err
}

// broken tells the other side with which code we leave and why.
func (s *socket) broken(code int, why error) error {
	s.sayClose(code, why.Error())
	return fmt.Errorf("%w: %w", ErrProtocol, why)
}

// write sends one encoded message.
func (s *socket) write(wire []byte) error {
	_ = s.ws.SetWriteDeadline(time.Now().Add(writeTimeout))
	return s.ws.WriteMessage(websocket.TextMessage, wire)
}

// ping asks for a sign of life.
func (s *socket) ping() error {
	return s.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeTimeout))
}

// sayClose sends a close frame. If it cannot be sent, the end of the connection
// says as much.
func (s *socket) sayClose(code int, reason string) {
	_ = s.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, cutReason(reason)), time.Now().Add(farewell))
}

// maxReason is what a close frame has room for beside its code, in bytes
// (RFC 6455, section 5.5).
const maxReason = 123

func cutReason(reason string) string {
	if len(reason) <= maxReason {
		return reason
	}
	n := maxReason
	for n > 0 && reason[n]&0xc0 == 0x80 { // not between the bytes of a character
		n--
	}
	return reason[:n]
}

// encode renders m and refuses what the other side would.
func encode(m events.ChannelMessage) ([]byte, error) {
	wire, err := events.EncodeChannelMessage(m)
	if err != nil {
		return nil, err
	}
	if len(wire) > events.MaxChannelMessage {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are allowed", ErrTooLarge, m.Type(), len(wire), events.MaxChannelMessage)
	}
	return wire, nil
}
