package events

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// MaxControlFrame is the size limit of a control frame's payload in bytes.
const MaxControlFrame = 16 << 10

// MaxCandidates bounds the addresses in one Candidates frame.
const MaxCandidates = 64

// ControlFrame is one message of a tailnet's control stream, either direction
// (docs/protocol.md, section 3). On the wire: type (1 byte), payload length
// (uvarint), payload.
type ControlFrame interface{ controlType() byte }

// The frame types; each documents its payload.
const (
	controlPing       byte = 1 // sequence (8 bytes, big-endian), sent (8 bytes, Unix microseconds)
	controlPong       byte = 2 // as the ping that it answers
	controlCandidates byte = 3 // count (uvarint), then length (uvarint) and address, each
	controlDrain      byte = 4 // grace in milliseconds (uvarint), length of the reason (uvarint), reason
	controlClose      byte = 5 // code (1 byte), length of the reason (uvarint), reason
	controlDrained    byte = 6 // streams (uvarint)
)

// Ping asks for a Pong. Sent only serves to show a skew of clocks; round trips
// are measured on the sender's monotonic clock.
type Ping struct {
	Seq  uint64
	Sent time.Time
}

// Pong answers the Ping with the same Seq and Sent.
type Pong struct {
	Seq  uint64
	Sent time.Time
}

// Candidates are addresses where the sender may be reached, best first. A
// frame replaces the one before it.
type Candidates struct{ Addrs []string }

// Drain announces that the sender goes away: no new streams, and the
// connection is closed when those in flight have finished or Grace is over.
type Drain struct {
	Grace  time.Duration
	Reason string
}

// Close gives the reason of the close that follows at once.
type Close struct {
	Code   CloseCode
	Reason string
}

// Drained says, on a connection that is being drained, that the sender has
// finished every stream. The side that opens streams sends it when it has none
// left; the other side answers when it has seen as many and has none left
// either. From then on nothing is in flight that a close could cut off.
type Drained struct {
	// Streams is how many streams the connection has carried in all, the
	// control stream not counted.
	Streams uint64
}

// UnknownFrame is a frame whose type this version does not know; it is counted
// and otherwise ignored.
type UnknownFrame struct{ Type byte }

func (Ping) controlType() byte           { return controlPing }
func (Pong) controlType() byte           { return controlPong }
func (Candidates) controlType() byte     { return controlCandidates }
func (Drain) controlType() byte          { return controlDrain }
func (Close) controlType() byte          { return controlClose }
func (Drained) controlType() byte        { return controlDrained }
func (f UnknownFrame) controlType() byte { return f.Type }

// ErrControlFrame is wrapped by every error of the control-frame codec.
var ErrControlFrame = errors.New("bad control frame")

// AppendControlFrame appends f to b. A reason beyond MaxReplyText is cut.
func AppendControlFrame(b []byte, f ControlFrame) ([]byte, error) {
	var p []byte
	switch f := f.(type) {
	case Ping:
		p = appendPing(p, f.Seq, f.Sent)
	case Pong:
		p = appendPing(p, f.Seq, f.Sent)
	case Candidates:
		if len(f.Addrs) > MaxCandidates {
			return b, fmt.Errorf("%w: %d candidates, at most %d are allowed", ErrControlFrame, len(f.Addrs), MaxCandidates)
		}
		p = binary.AppendUvarint(p, uint64(len(f.Addrs)))
		for _, a := range f.Addrs {
			p = appendText(p, a)
		}
	case Drain:
		p = binary.AppendUvarint(p, milliseconds(f.Grace))
		p = appendText(p, f.Reason)
	case Close:
		p = append(p, byte(f.Code))
		p = appendText(p, f.Reason)
	case Drained:
		p = binary.AppendUvarint(p, f.Streams)
	default:
		return b, fmt.Errorf("%w: %T cannot be sent", ErrControlFrame, f)
	}
	if len(p) > MaxControlFrame {
		return b, fmt.Errorf("%w: payload of %d bytes, at most %d are allowed", ErrControlFrame, len(p), MaxControlFrame)
	}
	b = append(b, f.controlType())
	b = binary.AppendUvarint(b, uint64(len(p)))
	return append(b, p...), nil
}

// ReadControlFrame reads one frame. io.EOF is returned only between frames; a
// frame of an unknown type is skipped and returned as an UnknownFrame.
func ReadControlFrame(r interface {
	io.Reader
	io.ByteReader
}) (ControlFrame, error) {
	typ, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	n, err := readUvarint(r, MaxControlFrame, "payload length")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrControlFrame, err)
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return decodeControl(typ, p)
}

func decodeControl(typ byte, p []byte) (ControlFrame, error) {
	d := &payload{b: p}
	var f ControlFrame
	switch typ {
	case controlPing:
		seq, sent := d.ping()
		f = Ping{Seq: seq, Sent: sent}
	case controlPong:
		seq, sent := d.ping()
		f = Pong{Seq: seq, Sent: sent}
	case controlCandidates:
		n := d.uvarint(MaxCandidates)
		var c Candidates
		for range n {
			c.Addrs = append(c.Addrs, d.text())
		}
		f = c
	case controlDrain:
		f = Drain{Grace: time.Duration(d.uvarint(maxDeadline)) * time.Millisecond, Reason: d.text()}
	case controlClose:
		f = Close{Code: CloseCode(d.byte()), Reason: d.text()}
	case controlDrained:
		f = Drained{Streams: d.uvarint(maxFlowID)}
	default:
		return UnknownFrame{Type: typ}, nil
	}
	if d.bad || len(d.b) > 0 {
		return nil, fmt.Errorf("%w: type %d with a payload of %d bytes that does not parse", ErrControlFrame, typ, len(p))
	}
	return f, nil
}

func appendPing(p []byte, seq uint64, sent time.Time) []byte {
	p = binary.BigEndian.AppendUint64(p, seq)
	return binary.BigEndian.AppendUint64(p, uint64(sent.UnixMicro()))
}

func appendText(p []byte, s string) []byte {
	s = cutText(s)
	p = binary.AppendUvarint(p, uint64(len(s)))
	return append(p, s...)
}

// payload reads fields off a frame; the first one that does not fit sets bad.
type payload struct {
	b   []byte
	bad bool
}

func (d *payload) take(n int) []byte {
	if n > len(d.b) {
		d.bad = true
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *payload) byte() byte {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *payload) uint64() uint64 {
	if p := d.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

func (d *payload) ping() (uint64, time.Time) {
	seq := d.uint64()
	return seq, time.UnixMicro(int64(d.uint64())).UTC()
}

func (d *payload) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > limit {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *payload) text() string {
	return string(d.take(int(d.uvarint(MaxReplyText))))
}
