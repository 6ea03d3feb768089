package events

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each target holds that its decoder never panics, that every error is one of
// the codec's own, and that what it accepts means the same after it was written
// anew. The seeds are the golden frames and some near misses.

// addFrames seeds f with the golden frames whose file name begins with prefix.
func addFrames(f *testing.F, prefix string) {
	n := 0
	for _, g := range goldenFrames() {
		if strings.HasPrefix(g.file, prefix) {
			wire, err := g.encode()
			require.NoError(f, err)
			f.Add(wire)
			n++
		}
	}
	require.NotZero(f, n, "no golden frame begins with %s", filepath.Join(frameDir, prefix))
}

func FuzzDecodeChannelMessage(f *testing.F) {
	addFrames(f, "channel/")
	for _, bad := range []string{
		``, `null`, `[]`, `{"data":{}}`, `{"type":1}`, `{"type":"agent.logs","data":[]}`, `{"type":"agent.logs"}`,
		`{"type":"agent.new_thing","data":1}`, `{"type":"connection.request","data":{"peer_candidates":[]}}`, `{"type":"time.request","data":{"client_transmit_time":"0001-01-01T00:00:00+24:00"}}`,
	} {
		f.Add([]byte(bad))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeChannelMessage(b)
		if err != nil {
			require.ErrorIs(t, err, ErrChannelMessage)
			return
		}
		wire, err := EncodeChannelMessage(m)
		require.NoError(t, err)
		again, err := DecodeChannelMessage(wire)
		require.NoError(t, err)
		// By the wire form, to which an empty list is none.
		wireAgain, err := EncodeChannelMessage(again)
		require.NoError(t, err)
		require.Equal(t, string(wire), string(wireAgain))
	})
}

func FuzzDecodeWatchMessage(f *testing.F) {
	addFrames(f, "watch/")
	for _, bad := range []string{
		``, `{}`, `null`, `{"build_update":{},"agent_update":{"id":"a"}}`, `{"build_update":{"build_number":-1}}`,
		`{"agent_update":{"build_number":1}}`, `{"build_update":{"job_status":"dancing"}}`, `{"error":{"code":7}}`,
	} {
		f.Add([]byte(bad))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeWatchMessage(b)
		if err != nil {
			require.ErrorIs(t, err, ErrWatchMessage)
			return
		}
		wire, err := EncodeWatchMessage(m)
		require.NoError(t, err)
		again, err := DecodeWatchMessage(wire)
		require.NoError(t, err)
		require.Equal(t, m, again)
	})
}

func FuzzReadControlFrame(f *testing.F) {
	addFrames(f, "control/")
	f.Add([]byte{})
	f.Add([]byte{99, 2, 1, 2})                         // an unknown type
	f.Add([]byte{1, 3, 0, 0, 0})                       // a ping too short
	f.Add([]byte{3, 1, 65})                            // more candidates than there may be
	f.Add([]byte{4, 0x80, 0x80, 0x80, 0x80, 0x01})     // a payload too long
	f.Add([]byte{5, 3, 0, 9, 'x'})                     // a text that runs over its frame
	f.Add([]byte{6, 1, 0x80})                          // a number cut off
	f.Add(bytes.Repeat([]byte{0xff}, MaxControlFrame)) // noise
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := ReadControlFrame(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			requireCodecError(t, err, ErrControlFrame)
			return
		}
		if _, unknown := frame.(UnknownFrame); unknown {
			return
		}
		wire, err := AppendControlFrame(nil, frame)
		require.NoError(t, err)
		again, err := ReadControlFrame(bufio.NewReader(bytes.NewReader(wire)))
		require.NoError(t, err)
		require.Equal(t, frame, again)
	})
}

func FuzzReadOpenHeader(f *testing.F) {
	for _, h := range goldenOpenHeaders {
		wire, err := AppendOpenHeader(nil, h)
		require.NoError(f, err)
		f.Add(wire[1:])
	}
	f.Add([]byte{2, 1, 0, 1, 'x'})                    // another version
	f.Add([]byte{1, 9, 0, 1, 'x'})                    // an unknown network
	f.Add([]byte{1, 1, 0, 0})                         // no target
	f.Add([]byte{1, 1, 0, 0xff, 0x7f})                // a target too long
	f.Add([]byte{1, 1, 0xff, 0xff, 0xff, 0xff, 0x7f}) // a deadline too long
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ReadOpenHeader(bytes.NewReader(b))
		if err != nil {
			requireCodecError(t, err, ErrStreamHeader)
			return
		}
		wire, err := AppendOpenHeader(nil, h)
		require.NoError(t, err)
		again, err := ReadOpenHeader(bytes.NewReader(wire[1:]))
		require.NoError(t, err)
		require.Equal(t, h, again)
	})
}

func FuzzReadReply(f *testing.F) {
	addFrames(f, "stream/reply")
	f.Add([]byte{200, 0})                                       // an unknown code
	f.Add([]byte{1, 0xff, 0x7f})                                // a text too long
	f.Add([]byte{1, 5, 'a'})                                    // a text cut off
	f.Add(append([]byte{1}, bytes.Repeat([]byte{0x80}, 11)...)) // a length without end
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ReadReply(bytes.NewReader(b))
		if err != nil {
			requireCodecError(t, err, ErrStreamHeader)
			return
		}
		again, err := ReadReply(bytes.NewReader(AppendReply(nil, r)))
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}

func FuzzSplitFlow(f *testing.F) {
	addFrames(f, "stream/flow")
	f.Add([]byte{})
	f.Add([]byte{0})
	f.Add(bytes.Repeat([]byte{0xff}, 10))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}) // no id of a stream
	f.Fuzz(func(t *testing.T, b []byte) {
		id, payload, err := SplitFlow(b)
		if err != nil {
			require.ErrorIs(t, err, ErrStreamHeader)
			return
		}
		idAgain, payloadAgain, err := SplitFlow(append(AppendFlow(nil, id), payload...))
		require.NoError(t, err)
		require.Equal(t, id, idAgain)
		require.True(t, bytes.Equal(payload, payloadAgain))
	})
}

// requireCodecError holds that err is the codec's own, or says that the input
// ended too early, which is the reader's.
func requireCodecError(t *testing.T, err, codec error) {
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		require.ErrorIs(t, err, codec)
	}
}
