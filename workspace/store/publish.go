package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// writeGrace is how long after a complaint of the embedded server a write may
// still be acknowledged. The server does not answer a write that its disk refused; all
// it does is complain in its log.
const writeGrace = 500 * time.Millisecond

// publish writes to a subject if the last message on it has the expected
// sequence, 0 for none, and returns the new message's. If not, isWrongSequence
// holds for the error; other errors are translated.
func (s *Store) publish(ctx context.Context, subject string, header nats.Header, data []byte, expected uint64) (uint64, error) {
	if err := s.failed.Load(); err != nil {
		return 0, *err
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	complained := s.complaints.next()
	start := time.Now()
	future, err := s.js.PublishMsgAsync(&nats.Msg{Subject: subject, Header: header, Data: data},
		jetstream.WithExpectLastSequencePerSubject(expected))
	if err != nil {
		return 0, s.translate(ctx, err)
	}
	var tooLate <-chan time.Time
	for {
		select {
		case ack := <-future.Ok():
			return ack.Sequence, nil
		case err := <-future.Err():
			if isWrongSequence(err) {
				return 0, err
			}
			return 0, s.translate(ctx, err)
		case <-complained:
			complained, tooLate = nil, time.After(writeGrace)
		case <-tooLate:
			return 0, s.writeFailed()
		case <-ctx.Done():
			// The complaint may have been about an earlier write whose caller did not wait for it.
			if s.complaints.any() && time.Since(start) > writeGrace {
				return 0, s.writeFailed()
			}
			return 0, s.translate(ctx, ctx.Err())
		}
	}
}

// writeFailed remembers for good that the disk refused a write: the server will
// refuse all further ones to that stream, and the store does so for the others.
func (s *Store) writeFailed() error {
	err := fmt.Errorf("%w (%w)", ErrWriteFailed, s.complaints.reason(1))
	s.failed.CompareAndSwap(nil, &err)
	return *s.failed.Load()
}

// isWrongSequence reports a failed compare-and-set.
func isWrongSequence(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == codeWrongLastSeqReplicated)
}

// translate turns what the client library says into what this package says. ctx
// is the one that the library was asked with, from bounded.
func (s *Store) translate(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case s.ctx.Err() != nil, errors.Is(err, nats.ErrConnectionClosed):
		return ErrClosed
	case s.server != nil && !s.server.JetStreamEnabled():
		return s.writeFailed() // which is why it switched itself off
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return context.Cause(ctx)
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch api.ErrorCode {
		case codeStoreFailed, codeInsufficientResources, codeStorageResourceExceeded:
			return fmt.Errorf("%w (%s, error %d)", ErrWriteFailed, api.Description, api.ErrorCode)
		}
	}
	return err
}
