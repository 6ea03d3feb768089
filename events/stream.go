package events

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// The first byte of every bidirectional stream of a tailnet says what the
// stream is (docs/protocol.md, section 3).
const (
	// StreamControl is the control stream: the client's first stream, one
	// for each connection.
	StreamControl byte = 1
	// StreamOpen is a stream to a target: an open header, version 1, follows.
	StreamOpen byte = 2
)

// Limits of the stream-open header and its reply, in bytes.
const (
	// MaxTarget bounds the target address: the longest Unix path and DNS name
	// are far below it.
	MaxTarget = 1024
	// MaxReplyText bounds the sentence of a reply.
	MaxReplyText = 512
)

// ErrStreamHeader is wrapped by every error of the stream-header decoders.
var ErrStreamHeader = errors.New("bad stream header")

// OpenHeader is what the opener of a stream says first. On the wire, after
// StreamOpen: version (1 byte, 1), network (1 byte), deadline in milliseconds
// (uvarint, 0 = the agent's own), length of the target (uvarint), target. The
// opener may send data right behind it.
type OpenHeader struct {
	// Network is the kind of target.
	Network Network
	// Target is host:port for TCP and UDP, a path for Unix.
	Target string
	// Deadline bounds the agent's dial; zero leaves it to the agent.
	Deadline time.Duration
}

const openVersion = 1

// AppendOpenHeader appends StreamOpen and the header to b.
func AppendOpenHeader(b []byte, h OpenHeader) ([]byte, error) {
	if h.Network == NetworkUnknown || h.Network > NetworkUnix {
		return b, fmt.Errorf("%w: unknown network %d", ErrStreamHeader, h.Network)
	}
	if h.Target == "" || len(h.Target) > MaxTarget {
		return b, fmt.Errorf("%w: target of %d bytes, 1 to %d are allowed", ErrStreamHeader, len(h.Target), MaxTarget)
	}
	if h.Deadline < 0 {
		return b, fmt.Errorf("%w: negative deadline", ErrStreamHeader)
	}
	b = append(b, StreamOpen, openVersion, byte(h.Network))
	b = binary.AppendUvarint(b, milliseconds(h.Deadline))
	b = binary.AppendUvarint(b, uint64(len(h.Target)))
	return append(b, h.Target...), nil
}

// maxDeadline keeps a peer's deadline within what time.Duration can hold.
const maxDeadline = uint64(24 * time.Hour / time.Millisecond)

// milliseconds is d on the wire. What is longer than a peer would accept is as
// good as the longest that it does; what is negative is nothing.
func milliseconds(d time.Duration) uint64 {
	return min(uint64(max(d, 0)/time.Millisecond), maxDeadline)
}

// cutText cuts a sentence to MaxReplyText bytes, between characters.
func cutText(s string) string {
	if len(s) <= MaxReplyText {
		return s
	}
	n := MaxReplyText
	for n > MaxReplyText-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// ReadOpenHeader reads what follows StreamOpen. It reads no byte beyond the
// header. The error wraps ErrStreamHeader, or is the reader's own.
func ReadOpenHeader(r io.ByteReader) (OpenHeader, error) {
	var h OpenHeader
	version, err := r.ReadByte()
	if err != nil {
		return h, err
	}
	if version != openVersion {
		return h, fmt.Errorf("%w: version %d, only %d is known", ErrStreamHeader, version, openVersion)
	}
	network, err := readByte(r)
	if err != nil {
		return h, err
	}
	h.Network = Network(network)
	if h.Network == NetworkUnknown || h.Network > NetworkUnix {
		return h, fmt.Errorf("%w: unknown network %d", ErrStreamHeader, network)
	}
	ms, err := readUvarint(r, maxDeadline, "deadline")
	if err != nil {
		return h, err
	}
	h.Deadline = time.Duration(ms) * time.Millisecond
	h.Target, err = readString(r, MaxTarget, "target")
	if err != nil {
		return h, err
	}
	if h.Target == "" {
		return h, fmt.Errorf("%w: empty target", ErrStreamHeader)
	}
	return h, nil
}

// Reply is the one answer to an open header: code (1 byte), length of the text
// (uvarint), text. Data follows a ReplyOK; anything else ends the stream.
type Reply struct {
	Code ReplyCode
	// Text is a sentence for a person; empty for ReplyOK.
	Text string
}

// Error implements error for every reply but ReplyOK.
func (r *Reply) Error() string {
	if r.Text == "" {
		return r.Code.String()
	}
	return r.Text
}

// AppendReply appends r to b; a text beyond MaxReplyText is cut.
func AppendReply(b []byte, r Reply) []byte {
	r.Text = cutText(r.Text)
	b = append(b, byte(r.Code))
	b = binary.AppendUvarint(b, uint64(len(r.Text)))
	return append(b, r.Text...)
}

// ReadReply reads one reply and no byte beyond it. The error wraps
// ErrStreamHeader, or is the reader's own.
func ReadReply(r io.ByteReader) (Reply, error) {
	code, err := r.ReadByte()
	if err != nil {
		return Reply{}, err
	}
	if ReplyCode(code) > ReplyInternal {
		return Reply{}, fmt.Errorf("%w: unknown reply code %d", ErrStreamHeader, code)
	}
	text, err := readString(r, MaxReplyText, "reply text")
	return Reply{Code: ReplyCode(code), Text: text}, err
}

// maxFlowID bounds the flow id of a datagram: ids are QUIC stream ids.
const maxFlowID = 1<<62 - 1

// AppendFlow appends the header of a datagram of the UDP flow: its id as a
// uvarint, which is the id of the stream that opened it. The payload follows.
func AppendFlow(b []byte, id uint64) []byte { return binary.AppendUvarint(b, id) }

// SplitFlow splits a datagram into its flow id and its payload, which shares
// memory with b. The error wraps ErrStreamHeader.
func SplitFlow(b []byte) (id uint64, payload []byte, err error) {
	id, n := binary.Uvarint(b)
	if n <= 0 || id > maxFlowID {
		return 0, nil, fmt.Errorf("%w: no flow id in a datagram of %d bytes", ErrStreamHeader, len(b))
	}
	return id, b[n:], nil
}

func readByte(r io.ByteReader) (byte, error) {
	c, err := r.ReadByte()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return c, err
}

func readUvarint(r io.ByteReader, limit uint64, what string) (uint64, error) {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		c, err := readByte(r)
		if err != nil {
			return 0, err
		}
		if shift == 63 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			if v > limit {
				return 0, fmt.Errorf("%w: %s of %d, at most %d is allowed", ErrStreamHeader, what, v, limit)
			}
			return v, nil
		}
	}
	return 0, fmt.Errorf("%w: %s is no number", ErrStreamHeader, what)
}

func readString(r io.ByteReader, limit int, what string) (string, error) {
	n, err := readUvarint(r, uint64(limit), what+" length")
	if err != nil {
		return "", err
	}
	b := make([]byte, n)
	if r, ok := r.(io.Reader); ok { // exactly n bytes, and not one at a time
		_, err := io.ReadFull(r, b)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return string(b), err
	}
	for i := range b {
		if b[i], err = readByte(r); err != nil {
			return "", err
		}
	}
	return string(b), nil
}

// NewByteReader gives r the io.ByteReader that the decoders want, one byte at
// a time and never ahead, unless r has it already. Reading ahead would take
// the stream's data.
func NewByteReader(r io.Reader) io.ByteReader {
	if br, ok := r.(io.ByteReader); ok {
		return br
	}
	return &byteReader{r: r}
}

type byteReader struct {
	r   io.Reader
	buf [1]byte
}

func (b *byteReader) ReadByte() (byte, error) {
	_, err := io.ReadFull(b.r, b.buf[:])
	return b.buf[0], err
}
