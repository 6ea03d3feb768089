package events

import (
	"bufio"
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDrainedFrameIsOneNumber(t *testing.T) {
	wire, err := AppendControlFrame(nil, Drained{Streams: 300})
	require.NoError(t, err)
	require.Equal(t, []byte{6, 2, 0xac, 0x02}, wire)

	frame, err := ReadControlFrame(bufio.NewReader(bytes.NewReader(wire)))
	require.NoError(t, err)
	require.Equal(t, Drained{Streams: 300}, frame)

	for name, bad := range map[string][]byte{
		"no number":           {6, 0},
		"a number cut off":    {6, 1, 0x80},
		"a byte too many":     {6, 2, 1, 1},
		"beyond a stream id":  append([]byte{6, 9}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
		"longer than 64 bits": append([]byte{6, 10}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
	} {
		_, err := ReadControlFrame(bufio.NewReader(bytes.NewReader(bad)))
		require.ErrorIs(t, err, ErrControlFrame, name)
	}
}
