package tailnet

import (
	crand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/quic-go/quic-go"
)

// The times of the protocol (docs/protocol.md, section 3).
const (
	keepAlive        = 15 * time.Second
	idleTimeout      = 30 * time.Second
	handshakeTimeout = 5 * time.Second

	// headerTimeout is how long the opener of a stream may take to send its
	// header, and the tunneler to open its control stream.
	headerTimeout = 10 * time.Second

	// linger is how long a Close waits for the peer to have taken in what was
	// written to streams that are closed already.
	linger = time.Second
)

// Receive windows, in bytes. A window costs memory only while it holds data
// that the application has not read.
//
//   - A stream starts small, so that a stream whose reader stalls before it
//     has shown any speed holds little; QUIC doubles the window of a stream
//     that is read as fast as it fills. The maximum covers 1 Gbit/s over a
//     round trip of 64 ms. On a link without delay, initial windows from 256 to
//     512 KiB and maxima from 6 to 16 MiB measured the same, within the noise,
//     as a plain quic-go stream beside them
//     (`go test -bench Throughput ./transport/tailnet`).
//   - The connection's window must not be what stops a stream: it is shared,
//     so a few stalled streams would stop all others, pings included. So it is
//     as large as all streams of a full connection stalled at their initial
//     window, and several at their maximum. It is also the bound on what a
//     peer can make us hold.
const (
	streamWindowInitial = 256 << 10
	streamWindowMax     = 8 << 20
	stalledStreams      = 8
)

// DefaultMaxStreams is how many streams a connection carries at once.
const DefaultMaxStreams = 1024

// streamSlack is how many streams beyond its limit a connection lets in, to
// answer them that there are too many; beyond that, opening one waits.
const streamSlack = 64

// connIDLength is longer than QUIC's usual 4 bytes because one socket serves
// every connection of an agent, several IDs each.
const connIDLength = 8

// quicConfig is the transport's configuration. maxStreams is how many streams
// the peer may open at once: zero for the tunneler, whose peer opens none.
func quicConfig(maxStreams int) *quic.Config {
	conf := &quic.Config{
		Versions:                       []quic.Version{quic.Version1},
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 idleTimeout,
		KeepAlivePeriod:                keepAlive,
		InitialStreamReceiveWindow:     streamWindowInitial,
		MaxStreamReceiveWindow:         streamWindowMax,
		InitialConnectionReceiveWindow: connWindow(maxStreams),
		MaxConnectionReceiveWindow:     connWindow(maxStreams),
		MaxIncomingStreams:             -1,
		MaxIncomingUniStreams:          -1,
		EnableDatagrams:                true,
	}
	if maxStreams > 0 {
		conf.MaxIncomingStreams = int64(maxStreams) + streamSlack
	}
	return conf
}

func connWindow(maxStreams int) uint64 {
	if maxStreams == 0 {
		maxStreams = DefaultMaxStreams
	}
	return uint64(maxStreams)*streamWindowInitial + stalledStreams*streamWindowMax
}

// Health says how the peer's life is watched. Anything received is a sign of
// life; pings make sure that there is something to receive. The zero value is
// the protocol's: a ping every 3 s, degraded after 9 s, lost after 30 s.
//
// QUIC's own idle timeout (30 s) stands whatever is set here, so a Lost of more
// than that has no effect.
type Health struct {
	// Interval is the mean time between pings; zero means 3 s.
	Interval time.Duration
	// Degraded is the silence after which the path counts as degraded, in
	// intervals; zero means 3.
	Degraded int
	// Lost is the silence after which the peer is given up, in intervals;
	// zero means 10.
	Lost int
	// Rand spreads the pings: each comes after Interval * (0.9 + 0.2 * Rand()).
	// It returns numbers in [0, 1), and must be safe for concurrent use if
	// several connections share it, as those of a listener do. Nil means a
	// source of each connection's own.
	Rand func() float64
}

func (h Health) withDefaults() Health {
	if h.Interval <= 0 {
		h.Interval = 3 * time.Second
	}
	if h.Degraded <= 0 {
		h.Degraded = 3
	}
	if h.Lost <= 0 {
		h.Lost = 10
	}
	if h.Rand == nil {
		var seed [16]byte
		_, _ = crand.Read(seed[:]) // never fails (documented)
		h.Rand = rand.New(rand.NewPCG(
			binary.LittleEndian.Uint64(seed[:8]), binary.LittleEndian.Uint64(seed[8:]))).Float64
	}
	return h
}

// next is the time from one ping to the next.
func (h Health) next() time.Duration {
	return time.Duration(float64(h.Interval) * (0.9 + 0.2*h.Rand()))
}

func (h Health) degradedAfter() time.Duration { return time.Duration(h.Degraded) * h.Interval }
func (h Health) lostAfter() time.Duration     { return time.Duration(h.Lost) * h.Interval }
