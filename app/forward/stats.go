package forward

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Reason says how a connection ended, if not well.
type Reason uint8

const (
	// reasonNone is a connection that ended well, by EOF both ways.
	reasonNone Reason = iota
	// ReasonUnreachable: the target could not be reached.
	ReasonUnreachable
	// ReasonNoTunnel: no tunnel came within AttachTimeout.
	ReasonNoTunnel
	// ReasonTunnelLost: the tunnel was taken away or replaced.
	ReasonTunnelLost
	// ReasonRemoteReset: the workspace's side reset it, or stopped reading.
	ReasonRemoteReset
	// ReasonLocalReset: the local client reset it.
	ReasonLocalReset
	// ReasonClosed: Close or Abort ended it.
	ReasonClosed
	// ReasonTooManyConns: refused, MaxConns was reached.
	ReasonTooManyConns
	// ReasonTooManyWaiting: refused, MaxWaiting was reached.
	ReasonTooManyWaiting

	numReasons
)

var reasonNames = [numReasons]string{
	reasonNone:           "none",
	ReasonUnreachable:    "unreachable",
	ReasonNoTunnel:       "no_tunnel",
	ReasonTunnelLost:     "tunnel_lost",
	ReasonRemoteReset:    "remote_reset",
	ReasonLocalReset:     "local_reset",
	ReasonClosed:         "closed",
	ReasonTooManyConns:   "too_many_conns",
	ReasonTooManyWaiting: "too_many_waiting",
}

// String is a name that suits the label of a metric.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// MarshalText gives the name, so that Stats reads well as JSON.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// refusal reports whether the reason is a limit of ours.
func (r Reason) refusal() bool { return r == ReasonTooManyConns || r == ReasonTooManyWaiting }

// Stats counts what an App has done since it started. At any moment Accepted
// is Active + Completed + Refused + the sum of Failed.
type Stats struct {
	Accepted  uint64 `json:"accepted"`  // connections taken from the listeners
	Active    uint64 `json:"active"`    // of those, not ended yet, waiting ones included
	Waiting   uint64 `json:"waiting"`   // of those, waiting for a tunnel
	Completed uint64 `json:"completed"` // ended well
	Refused   uint64 `json:"refused"`   // reset because a limit was reached
	// Failed counts the connections that did not end well, by reason; reasons
	// that have not occurred are absent.
	Failed map[Reason]uint64 `json:"failed"`
	// Sent and Received are bytes to and from the workspace's side.
	Sent     uint64 `json:"sent"`
	Received uint64 `json:"received"`
}

// counters are the running totals behind Stats.
type counters struct {
	sent, received atomic.Uint64

	mu       sync.Mutex
	accepted uint64
	active   uint64
	ended    [numReasons]uint64
}

// admit counts a connection, and says whether it is within limit.
func (c *counters) admit(limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accepted++
	if c.active >= uint64(limit) {
		c.ended[ReasonTooManyConns]++
		return false
	}
	c.active++
	return true
}

// end counts the end of an admitted connection.
func (c *counters) end(reason Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active--
	c.ended[reason]++
}

// Stats returns a snapshot of the counters.
func (a *App) Stats() Stats {
	waiting := a.slot.waitingNow()
	c := &a.counters
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{
		Accepted:  c.accepted,
		Active:    c.active,
		Waiting:   uint64(waiting),
		Completed: c.ended[reasonNone],
		Failed:    make(map[Reason]uint64),
		Sent:      c.sent.Load(),
		Received:  c.received.Load(),
	}
	for reason := reasonNone + 1; reason < numReasons; reason++ {
		switch n := c.ended[reason]; {
		case n == 0:
		case reason.refusal():
			s.Refused += n
		default:
			s.Failed[reason] += n
		}
	}
	return s
}
