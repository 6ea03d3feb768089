package tailnet

import "io"

// The least bytes that a good header, with its stream's type, and a reply take.
const (
	leastHeader = 6
	leastReply  = 2
)

// prefixReader reads the few bytes at a stream's beginning that are not data,
// and never a byte of what follows them. It keeps what it has read: set pos
// back to zero to begin anew after a deadline has interrupted.
type prefixReader struct {
	r io.Reader
	// least is how many bytes must come in any case, so that they can be asked
	// for at once.
	least int
	buf   []byte
	pos   int
}

// ReadByte implements io.ByteReader.
func (p *prefixReader) ReadByte() (byte, error) {
	if p.pos == len(p.buf) {
		if err := p.fetch(max(1, p.least-len(p.buf))); err != nil {
			return 0, err
		}
	}
	p.pos++
	return p.buf[p.pos-1], nil
}

// Read implements io.Reader.
func (p *prefixReader) Read(b []byte) (int, error) {
	if p.pos == len(p.buf) && len(b) > 0 {
		if err := p.fetch(len(b)); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.buf[p.pos:])
	p.pos += n
	return n, nil
}

// fetch waits for at least one byte more, and takes up to n.
func (p *prefixReader) fetch(n int) error {
	have := len(p.buf)
	p.buf = append(p.buf, make([]byte, n)...)
	for {
		got, err := p.r.Read(p.buf[have:])
		if got > 0 {
			p.buf = p.buf[:have+got]
			return nil
		}
		if err != nil {
			p.buf = p.buf[:have]
			return err
		}
	}
}
