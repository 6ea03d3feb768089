package tailnet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tunneler/tunneler/events"
)

// Incoming is a stream that the tunneler has opened and that the agent has not
// answered yet. Each must be answered once, with Accept, Flow or Refuse, unless
// Header has failed. It is for one goroutine, that of the stream's server.
type Incoming struct {
	s    Stream
	read bool
	err  error
	flow *Flow
}

// Accept waits for the next stream that the tunneler opens. It does not wait
// for the stream's header, so that a peer that is slow to send one holds up
// nothing else; call Header where the stream is served. A stream beyond the
// connection's limit is refused here. The error is that of the connection's
// end, or ctx's; at the tunneler's end nothing else ever comes.
func (c *Conn) Accept(ctx context.Context) (*Incoming, error) {
	for {
		q, err := c.q.AcceptStream(ctx)
		if err != nil {
			return nil, c.connError(err)
		}
		in := &Incoming{s: Stream{conn: c, q: q}}
		c.mu.Lock()
		c.seen++
		full := len(c.streams) >= c.maxStreams
		leaving := c.leaving.leave != nil
		c.streams[&in.s] = struct{}{}
		c.mu.Unlock()
		switch {
		case leaving:
			in.refuse(events.ReplyRefused, leaveReason)
		case full:
			c.metrics.add(StreamsTooMany)
			in.refuse(events.ReplyTooMany, fmt.Sprintf("the connection already carries %d streams", c.maxStreams))
		default:
			c.metrics.add(StreamsAccepted)
			return in, nil
		}
	}
}

// Header reads what the stream was opened with; later calls return the same.
// A stream that does not begin with a header within 10 s is refused, and needs
// no other answer.
func (in *Incoming) Header() (events.OpenHeader, error) {
	if in.read {
		return in.s.header, in.err
	}
	in.read = true
	_ = in.s.q.SetReadDeadline(time.Now().Add(headerTimeout)) // always nil
	in.s.header, in.err = readOpen(in.s.q)
	_ = in.s.q.SetReadDeadline(time.Time{})
	if in.err == nil {
		if in.s.header.Network == events.NetworkUDP {
			// From here on its datagrams may come, before anyone has decided.
			in.flow = newFlow(&in.s)
			in.s.conn.flows.add(in.flow)
		}
		return in.s.header, nil
	}
	in.err = in.s.failure(in.err)
	in.s.conn.metrics.add(BadHeaders)
	in.refuse(events.ReplyBadRequest, in.err.Error())
	return in.s.header, in.err
}

// readOpen reads the type of the stream and its header.
func readOpen(q *quic.Stream) (events.OpenHeader, error) {
	r := &prefixReader{r: q, least: leastHeader}
	typ, err := r.ReadByte()
	if err != nil {
		return events.OpenHeader{}, err
	}
	if typ != events.StreamOpen {
		return events.OpenHeader{}, fmt.Errorf("%w: stream of unknown type %d", events.ErrStreamHeader, typ)
	}
	return events.ReadOpenHeader(r)
}

var errIsFlow = errors.New("the stream opens a flow: answer it with Flow")

// Accept answers that the target was reached, and gives the stream. An opener
// that reads no more, as after its Close, is no error: what it has written is
// there to be read.
func (in *Incoming) Accept() (*Stream, error) {
	if in.flow != nil {
		return nil, errIsFlow
	}
	if err := in.ok(); err != nil {
		return nil, err
	}
	return &in.s, nil
}

// ok sends the good reply.
func (in *Incoming) ok() error {
	if in.err != nil {
		return in.err
	}
	if _, err := in.s.q.Write(events.AppendReply(nil, events.Reply{Code: events.ReplyOK})); err != nil {
		err = in.s.failure(err)
		if _, unread := errors.AsType[*ResetError](err); !unread {
			in.s.Reset(events.CloseNormal)
			return err
		}
	}
	return nil
}

// Refuse answers that the target was not reached, with a sentence for a person
// (of a long one, the first 512 bytes), and ends the stream.
func (in *Incoming) Refuse(code events.ReplyCode, text string) {
	if in.err == nil {
		in.refuse(code, text)
	}
}

func (in *Incoming) refuse(code events.ReplyCode, text string) {
	if code == events.ReplyOK {
		code = events.ReplyInternal // a refusal is none of the good answers
	}
	in.s.conn.metrics.add(StreamsRefused)
	if in.flow != nil {
		in.s.conn.flows.remove(in.flow)
	}
	// A first write that fits a packet is only queued, so it does not block;
	// if it fails, the peer has gone already.
	_, _ = in.s.q.Write(events.AppendReply(nil, events.Reply{Code: code, Text: text}))
	_ = in.s.Close()
}
