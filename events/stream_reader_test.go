package events

import (
	"bufio"
	"bytes"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
)

// A header must read the same from a reader that gives one byte at a time and
// from one that gives many, whole or cut off anywhere, and no byte beyond it
// may be taken.
func TestAHeaderReadsTheSameFromEveryReader(t *testing.T) {
	header := OpenHeader{Network: NetworkTCP, Target: "db.internal:5432", Deadline: 3 * time.Second}
	wire, err := AppendOpenHeader(nil, header)
	require.NoError(t, err)
	wire = wire[1:] // the stream's type
	for size := range len(wire) + 1 {
		whole := bytes.NewReader(append(wire[:size:size], "data"[:4*(size/len(wire))]...))
		byByte := NewByteReader(iotest.OneByteReader(bytes.NewReader(wire[:size])))
		got, err := ReadOpenHeader(whole)
		same, errByByte := ReadOpenHeader(byByte)
		_, errBuffered := ReadOpenHeader(bufio.NewReader(bytes.NewReader(wire[:size])))
		require.Equal(t, errByByte, err, size)
		require.Equal(t, errByByte, errBuffered, size)
		switch size {
		case 0:
			require.Equal(t, io.EOF, err)
		case len(wire):
			require.NoError(t, err)
			require.Equal(t, header, got)
			require.Equal(t, header, same)
			require.Equal(t, 4, whole.Len(), "the data is left alone")
		default:
			require.Equal(t, io.ErrUnexpectedEOF, err, size)
		}
	}
}
