package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// message is one stored message of a stream.
type message struct {
	subject string
	seq     uint64
	time    time.Time
	header  nats.Header
	data    []byte
}

// fetchBytes bounds one answer to fetch, in bytes; it is exceeded by at most one message.
const fetchBytes = 512 << 10

// Headers and statuses of JetStream's direct get (NATS ADR-31).
const (
	headerStatus     = "Status"
	headerSubject    = "Nats-Subject"
	headerSequence   = "Nats-Sequence"
	headerTimestamp  = "Nats-Time-Stamp"
	headerPending    = "Nats-Num-Pending"
	statusEndOfBatch = "204"
	statusNotFound   = "404"
)

// fetch returns up to n messages of a stream, in order, whose subject matches
// filter and whose sequence is at least from, and fewer if they are large; more
// says that there are more. None means that there is none that can be read. It is
// JetStream's batched direct get (NATS ADR-31), which needs no consumer and
// leaves nothing behind in the server.
func (s *Store) fetch(ctx context.Context, stream, filter string, from uint64, n int) (msgs []message, more bool, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	select {
	case s.fetches <- struct{}{}:
		defer func() { <-s.fetches }()
	case <-ctx.Done():
		return nil, false, s.translate(ctx, ctx.Err())
	}

	request, err := json.Marshal(struct {
		Seq      uint64 `json:"seq"`
		NextFor  string `json:"next_by_subj"`
		Batch    int    `json:"batch"`
		MaxBytes int    `json:"max_bytes"`
	}{from, filter, n, fetchBytes})
	if err != nil {
		return nil, false, fmt.Errorf("cannot encode request: %w", err)
	}
	inbox := s.nc.NewInbox()
	sub, err := s.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, false, s.translate(ctx, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	if err := s.nc.PublishRequest("$JS.API.DIRECT.GET."+stream, inbox, request); err != nil {
		return nil, false, s.translate(ctx, err)
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, false, s.translate(ctx, err)
		}
		switch status := m.Header.Get(headerStatus); status {
		case "":
		case statusNotFound:
			return msgs, false, nil
		case statusEndOfBatch:
			return msgs, m.Header.Get(headerPending) != "0", nil
		default:
			return nil, false, fmt.Errorf("reading stream %s: server answered %s %s", stream, status, m.Header.Get("Description"))
		}
		msg, err := parseFetched(m)
		if err != nil {
			return nil, false, fmt.Errorf("reading stream %s: %w", stream, err)
		}
		msgs = append(msgs, msg)
	}
}

func parseFetched(m *nats.Msg) (message, error) {
	seq, err := strconv.ParseUint(m.Header.Get(headerSequence), 10, 64)
	if err != nil {
		return message{}, fmt.Errorf("server sent no sequence: %w", err)
	}
	at, err := time.Parse(time.RFC3339Nano, m.Header.Get(headerTimestamp))
	if err != nil {
		return message{}, fmt.Errorf("server sent no time stamp: %w", err)
	}
	return message{subject: m.Header.Get(headerSubject), seq: seq, time: at, header: m.Header, data: m.Data}, nil
}

// last returns the newest message on a subject, if there is one. The server
// answers "not found" for a message that it cannot read, too, so an absence is
// checked against its index, which tells the two apart.
func (s *Store) last(ctx context.Context, stream jetstream.Stream, subject string) (message, bool, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	for range 3 {
		m, err := stream.GetLastMsgForSubject(ctx, subject)
		if err == nil {
			return message{subject: m.Subject, seq: m.Sequence, time: m.Time, header: m.Header, data: m.Data}, true, nil
		}
		if !errors.Is(err, jetstream.ErrMsgNotFound) {
			return message{}, false, s.translate(ctx, err)
		}
		info, err := s.info(ctx, stream, jetstream.WithSubjectFilter(subject))
		if err != nil {
			return message{}, false, err
		}
		if info.State.Subjects[subject] == 0 {
			return message{}, false, nil
		}
		// Written between the two questions, or unreadable.
	}
	return message{}, false, &CorruptError{What: subject, Cause: errUnreadable}
}

// info asks how a stream is now.
func (s *Store) info(ctx context.Context, stream jetstream.Stream, opts ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	info, err := stream.Info(ctx, opts...)
	if err != nil {
		return nil, s.translate(ctx, err)
	}
	return info, nil
}

// errUnreadable: the server's index has a message that the server does not give out.
var errUnreadable = errors.New("it is stored but cannot be read: restore the data directory from a backup")
