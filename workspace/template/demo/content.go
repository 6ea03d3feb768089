package demo

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
)

// blockSize is the size of the block that content is made of: large enough that a write a block costs little.
const blockSize = 1 << 20

// block is the pseudo-random block. It is made once, of ChaCha8 with a fixed seed, and never written to.
var block = sync.OnceValue(func() []byte {
	b := make([]byte, blockSize)
	source := rand.NewChaCha8([32]byte{'t', 'u', 'n', 'n', 'e', 'l', 'e', 'r'})
	_, _ = source.Read(b) // never fails
	return b
})

// stampSize is the number of bytes at the beginning of each block of content that hold the block's number, so that
// content whose blocks were swapped or repeated hashes differently.
const stampSize = 8

// Content is what /download serves: Size bytes, the same for every reader. Block number i of 1 MiB begins with i as 8
// big-endian bytes, and goes on with pseudo-random bytes. It is made for one reader at a time.
type Content struct {
	size, offset int64
}

// NewContent makes content of the given size in bytes.
func NewContent(size int64) *Content { return &Content{size: size} }

// Size is the length of the content in bytes.
func (c *Content) Size() int64 { return c.size }

// Read implements io.Reader.
func (c *Content) Read(p []byte) (int, error) {
	if c.offset >= c.size {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) && c.offset < c.size {
		n += c.next(func(part []byte) (int, error) { return copy(p[n:], part), nil })
	}
	return n, nil
}

// WriteTo implements io.WriterTo: it hands out the shared block itself, without copying it.
func (c *Content) WriteTo(w io.Writer) (written int64, err error) {
	for c.offset < c.size && err == nil {
		written += int64(c.next(func(part []byte) (n int, _ error) {
			n, err = w.Write(part)
			return n, err
		}))
	}
	return written, err
}

// next calls use with the longest run of bytes at the offset that lies in memory as it is, and moves on by what use
// has taken.
func (c *Content) next(use func(part []byte) (int, error)) int {
	at := c.offset % blockSize
	part := block()[at:]
	if at < stampSize {
		var stamp [stampSize]byte
		binary.BigEndian.PutUint64(stamp[:], uint64(c.offset/blockSize))
		part = stamp[at:]
	}
	n, _ := use(part[:min(int64(len(part)), c.size-c.offset)])
	c.offset += int64(n)
	return n
}

// Seek implements io.Seeker.
func (c *Content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += c.offset
	case io.SeekEnd:
		offset += c.size
	default:
		return 0, errors.New("demo: seek from nowhere")
	}
	if offset < 0 {
		return 0, errors.New("demo: seek before the beginning")
	}
	c.offset = offset
	return offset, nil
}
