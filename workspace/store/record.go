package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// LogRecord is one line of a log.
type LogRecord struct {
	// ID is given by Append. It grows within a log, but not by one, and fits in
	// the 53 bits of a JavaScript number.
	ID int64
	// Origin is the writer's own number of the line, 0 for none. It must grow
	// within a log; Append leaves out a line whose Origin is not above all that
	// the log has seen, so that a writer can send again what may have been lost.
	Origin uint64
	// CreatedAt is when the line was written; if zero, Append's time is filled
	// in on reading. Kept to the nanosecond, between the years 1678 and 2262.
	CreatedAt time.Time
	// Level, Source and Stage are short words; longer than 64 bytes they are cut.
	Level, Source, Stage string
	// Output is the line. Longer than MaxOutput it is cut and ends in cutMark.
	// Bytes that are not UTF-8 become U+FFFD.
	Output string
}

const (
	// MaxOutput bounds the text of one line, in bytes, mark of the cut included.
	MaxOutput = 64 << 10
	cutMark   = " ... (line cut at 64 KiB)"
	maxWord   = 64

	// A batch, the records of one Append or a part of them, is one message of
	// the stream. idShift bits of an ID are a record's place in its batch, the rest is the
	// batch's sequence in the stream.
	idShift         = 12
	maxBatchRecords = 1 << idShift
	// maxBatchBytes ends a batch. One record more, encoded, may exceed it: with
	// six bytes for each of its own at worst, that still fits in maxPayload.
	maxBatchBytes = 256 << 10
)

// batch is the decoded form of one message of the log stream: a line with a
// header and a line for each record, each a JSON object.
type batch struct {
	batchHeader
	Records []LogRecord // without IDs
}

type batchHeader struct {
	Format  int    `json:"format"`
	Records int    `json:"records"`
	Before  uint64 `json:"before"` // bytes of Output in the log ahead of this batch, dropped ones included
	Bytes   uint64 `json:"bytes"`  // bytes of Output in this batch
	Origin  uint64 `json:"origin"` // the highest in the log, this batch included
}

type wireRecord struct {
	Origin    uint64 `json:"n,omitempty"`
	CreatedAt int64  `json:"t,omitempty"` // nanoseconds since 1970
	Level     string `json:"l,omitempty"`
	Source    string `json:"s,omitempty"`
	Stage     string `json:"g,omitempty"`
	Output    string `json:"o"`
}

// encodeBatch encodes as many records as go into one batch, at least one, after
// what the log's tail says. It returns the rest.
func encodeBatch(records []LogRecord, tail batchHeader) (data []byte, header batchHeader, rest []LogRecord, err error) {
	header = batchHeader{Format: formatVersion, Before: tail.Before + tail.Bytes, Origin: tail.Origin}
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	for header.Records < len(records) && header.Records < maxBatchRecords && body.Len() < maxBatchBytes {
		w := toWire(records[header.Records])
		if err := encoder.Encode(w); err != nil { // which ends it with a newline
			return nil, batchHeader{}, nil, fmt.Errorf("cannot encode log record: %w", err)
		}
		header.Records++
		header.Bytes += uint64(len(w.Output))
		header.Origin = max(header.Origin, w.Origin)
	}
	data, err = json.Marshal(header)
	if err != nil {
		return nil, batchHeader{}, nil, fmt.Errorf("cannot encode log record: %w", err)
	}
	data = append(append(data, '\n'), body.Bytes()...)
	return data, header, records[header.Records:], nil
}

// decodeHeader decodes the first line of a batch and returns the others.
func decodeHeader(data []byte) (batchHeader, []byte, error) {
	first, body, ok := bytes.Cut(data, []byte{'\n'})
	if !ok {
		return batchHeader{}, nil, errors.New("log batch has no header")
	}
	var header batchHeader
	if err := json.Unmarshal(first, &header); err != nil {
		return batchHeader{}, nil, fmt.Errorf("log batch header: %w", err)
	}
	if header.Format != formatVersion {
		return batchHeader{}, nil, fmt.Errorf("log batch has format %d, not %d", header.Format, formatVersion)
	}
	if header.Records < 1 || header.Records > maxBatchRecords {
		return batchHeader{}, nil, fmt.Errorf("log batch claims %d records", header.Records)
	}
	if header.Before > math.MaxInt64 || header.Bytes > uint64(len(body)) {
		return batchHeader{}, nil, errors.New("log batch claims an impossible size")
	}
	return header, body, nil
}

func decodeBatch(data []byte) (batch, error) {
	header, body, err := decodeHeader(data)
	if err != nil {
		return batch{}, err
	}
	b := batch{batchHeader: header}
	for line := range bytes.Lines(body) {
		if len(b.Records) == header.Records || line[len(line)-1] != '\n' {
			return batch{}, errors.New("log batch has more records than it claims, or ends within one")
		}
		var w wireRecord
		if err := json.Unmarshal(line, &w); err != nil {
			return batch{}, fmt.Errorf("log record: %w", err)
		}
		b.Records = append(b.Records, w.record())
	}
	if len(b.Records) != header.Records {
		return batch{}, fmt.Errorf("log batch has %d of %d records", len(b.Records), header.Records)
	}
	return b, nil
}

func toWire(r LogRecord) wireRecord {
	w := wireRecord{
		Origin: r.Origin,
		Level:  cut(r.Level, maxWord, ""),
		Source: cut(r.Source, maxWord, ""),
		Stage:  cut(r.Stage, maxWord, ""),
		Output: cut(r.Output, MaxOutput, cutMark),
	}
	if y := r.CreatedAt.Year(); y > 1677 && y < 2262 { // what UnixNano can say
		w.CreatedAt = r.CreatedAt.UnixNano()
	}
	return w
}

func (w wireRecord) record() LogRecord {
	r := LogRecord{Origin: w.Origin, Level: w.Level, Source: w.Source, Stage: w.Stage, Output: w.Output}
	if w.CreatedAt != 0 {
		r.CreatedAt = time.Unix(0, w.CreatedAt).UTC()
	}
	return r
}

// cut makes s valid UTF-8 of at most limit bytes, ending in mark if something is
// missing.
func cut(s string, limit int, mark string) string {
	if len(s) <= limit {
		if s = strings.ToValidUTF8(s, string(utf8.RuneError)); len(s) <= limit {
			return s // the usual case
		}
	}
	s = strings.ToValidUTF8(runePrefix(s, limit), string(utf8.RuneError))
	return runePrefix(s, limit-len(mark)) + mark
}

// runePrefix returns the longest prefix of s of at most limit bytes that does not
// end within a character.
func runePrefix(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := limit
	for end > 0 && limit-end < utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// recordID makes an ID from the sequence of a batch and the place in it.
func recordID(seq uint64, place int) int64 { return int64(seq)<<idShift | int64(place) }

// batchOf returns the sequence of the batch that an ID is in.
func batchOf(id int64) uint64 { return uint64(id) >> idShift }
