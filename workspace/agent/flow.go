package agent

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneler/tunneler/transport/tailnet"
)

// udpIdle is how long a flow without a packet is kept; RFC 4787, section 4.3,
// asks a NAT for at least two minutes.
const udpIdle = 2 * time.Minute

// maxPacket is the largest UDP payload in bytes.
const maxPacket = 65535

var packetBuffers = sync.Pool{New: func() any { b := make([]byte, maxPacket); return &b }}

// relayFlow carries packets until either side ends or both fall silent.
func (t *tunnels) relayFlow(flow *tailnet.Flow, conn net.Conn) {
	var last atomic.Int64
	last.Store(time.Now().UnixNano())
	carry := func(dst, src net.Conn, count *atomic.Int64) {
		defer dst.Close()
		defer src.Close()
		buf := packetBuffers.Get().(*[]byte)
		defer packetBuffers.Put(buf)
		for {
			_ = src.SetReadDeadline(time.Now().Add(udpIdle))
			n, err := src.Read(*buf)
			switch {
			case err == nil:
			case isTransient(err):
				continue
			case isTimeout(err) && time.Since(time.Unix(0, last.Load())) < udpIdle:
				continue // the other direction is alive
			default:
				return
			}
			last.Store(time.Now().UnixNano())
			n, err = dst.Write((*buf)[:n])
			if err != nil && !isTransient(err) && !isTooLarge(err) {
				return
			}
			count.Add(int64(n))
		}
	}
	var up sync.WaitGroup
	up.Go(func() { carry(conn, flow, &t.received) })
	carry(flow, conn, &t.sent)
	up.Wait()
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// isTooLarge: the packet does not fit a datagram; it is dropped, as UDP may.
func isTooLarge(err error) bool {
	_, ok := errors.AsType[*tailnet.DatagramTooLargeError](err)
	return ok
}
