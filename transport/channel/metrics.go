package channel

import "sync/atomic"

// Metrics counts what happens on channels. The zero value is ready; one may be
// shared by any number of clients and connections.
type Metrics struct {
	connected, failed, lost, refused, rejected atomic.Uint64
	sent, received, resent, dropped            atomic.Uint64
	unknown, unexpected, lateResults, busy     atomic.Uint64
}

// Snapshot is what a Metrics has counted so far.
type Snapshot struct {
	// Connected counts sessions that were welcome, Failed attempts that came to
	// none, Lost sessions that ended without either side's will.
	Connected, Failed, Lost uint64
	// Refused counts attempts with a token that the server did not accept,
	// Rejected hellos that it did not welcome and sessions that it ended.
	Refused, Rejected uint64
	// Sent and Received count messages; Resent those of Sent that were sent
	// before on a connection that broke.
	Sent, Received, Resent uint64
	// Dropped counts messages that might be lost and were, for want of room.
	Dropped uint64
	// Unknown counts received messages of a type that this version does not
	// know, Unexpected those that the other side should not have sent.
	Unknown, Unexpected uint64
	// LateResults counts answers that nobody waited for any more, Busy requests
	// that were not sent because too many were waiting.
	LateResults, Busy uint64
}

// Snapshot reads the counters.
func (m *Metrics) Snapshot() Snapshot {
	return Snapshot{
		Connected: m.connected.Load(), Failed: m.failed.Load(), Lost: m.lost.Load(),
		Refused: m.refused.Load(), Rejected: m.rejected.Load(),
		Sent: m.sent.Load(), Received: m.received.Load(), Resent: m.resent.Load(), Dropped: m.dropped.Load(),
		Unknown: m.unknown.Load(), Unexpected: m.unexpected.Load(),
		LateResults: m.lateResults.Load(), Busy: m.busy.Load(),
	}
}
