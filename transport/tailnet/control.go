package tailnet

import (
	"bufio"
	"errors"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

// control is the sending side of a control stream. A send never blocks: the
// health of the connection must not hang on whether the peer reads.
type control struct {
	q       *quic.Stream
	metrics *Metrics

	mu  sync.Mutex
	buf []byte
}

// send queues a frame. A frame that flow control leaves no room for, because
// the peer does not read its control stream, is dropped and counted.
func (c *control) send(f events.ControlFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := events.AppendControlFrame(c.buf[:0], f)
	if err != nil {
		panic(err) // every frame that this package sends is within the limits
	}
	c.buf = b
	if errors.Is(c.q.TryWriteAll(b), quic.ErrWouldBlock) {
		c.metrics.add(ControlStalls)
	}
}

// controlReadBuffer holds any ping, pong, drain or close.
const controlReadBuffer = 1 << 10

// readControl reads the peer's control frames until the stream ends.
func (c *Conn) readControl() error {
	r := bufio.NewReaderSize(c.control.q, controlReadBuffer)
	for {
		frame, err := events.ReadControlFrame(r)
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case events.Ping:
			// Only the clocks can have made this negative; nothing is
			// computed from it.
			if time.Since(f.Sent) < 0 {
				c.metrics.add(ClockSkews)
			}
			c.control.send(events.Pong(f))
		case events.Pong:
			c.health.pong(f.Seq)
		case events.Drain:
			c.logger.Debug("the peer drains", zap.Duration("grace", f.Grace), zap.String("reason", f.Reason))
			c.peerDrains(f)
		case events.Drained:
			c.peerDrained(f)
		case events.Close:
			c.farewell.CompareAndSwap(nil, &CloseError{Code: closeCode(uint64(f.Code)), Reason: f.Reason, Remote: true})
		default:
			// Candidates, and what a newer version may send.
			c.metrics.add(ControlIgnored)
		}
	}
}
