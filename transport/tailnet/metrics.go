package tailnet

import (
	"iter"
	"sync/atomic"
)

// Counter is one of the things that a [Metrics] counts.
type Counter uint8

// The counters. The name of each is its comment, fit for a metric's name.
const (
	SessionsUnknown   Counter = iota // sessions_unknown
	PeerKeysRefused                  // peer_keys_refused
	HandshakesRefused                // handshakes_refused
	AddressChecks                    // address_checks
	ConnsAbandoned                   // conns_abandoned
	ConnsAccepted                    // conns_accepted
	ConnsReplaced                    // conns_replaced
	ConnsDialled                     // conns_dialled
	ConnsDegraded                    // conns_degraded
	ConnsLost                        // conns_lost
	StreamsOpened                    // streams_opened
	StreamsAccepted                  // streams_accepted
	StreamsRefused                   // streams_refused
	StreamsTooMany                   // streams_too_many
	BadHeaders                       // bad_headers
	BadReplies                       // bad_replies
	DatagramsTooLarge                // datagrams_too_large
	DatagramsOverflow                // datagrams_overflow
	DatagramsUnknown                 // datagrams_unknown
	PongsUnknown                     // pongs_unknown
	ControlStalls                    // control_stalls
	ControlIgnored                   // control_ignored
	ClockSkews                       // clock_skews
	SendErrors                       // send_errors
	numCounters
)

//go:generate go tool stringer -type=Counter -linecomment -output=metrics_string.go

// Help says in a sentence what the counter counts.
func (c Counter) Help() string { return counterHelp[c] }

var counterHelp = [numCounters]string{
	SessionsUnknown:   "Handshakes for a session that is not expected, or no longer.",
	PeerKeysRefused:   "Handshakes by a peer with another key than the pinned one.",
	HandshakesRefused: "Handshakes refused because too many were under way.",
	AddressChecks:     "First packets of handshakes that were sent back to prove their source address (Retry).",
	ConnsAbandoned:    "Connections that never opened their control stream, such as the losers of a race.",
	ConnsAccepted:     "Connections accepted from tunnelers.",
	ConnsReplaced:     "Connections closed because their session's tunneler connected anew.",
	ConnsDialled:      "Connections brought up to agents.",
	ConnsDegraded:     "Times a connection fell silent for longer than it should.",
	ConnsLost:         "Connections that were lost: the peer fell silent, restarted or cannot be reached.",
	StreamsOpened:     "Streams opened to targets.",
	StreamsAccepted:   "Streams accepted from tunnelers.",
	StreamsRefused:    "Streams answered with a refusal.",
	StreamsTooMany:    "Streams refused because the connection carried its limit.",
	BadHeaders:        "Streams that did not begin with a header that we understand.",
	BadReplies:        "Streams whose reply we did not understand.",
	DatagramsTooLarge: "Datagrams of a flow that did not fit into a packet.",
	DatagramsOverflow: "Datagrams dropped because their flow's reader was slow.",
	DatagramsUnknown:  "Datagrams dropped because they belong to no flow.",
	PongsUnknown:      "Pongs dropped because they answer no ping under way.",
	ControlStalls:     "Control frames dropped because the peer does not read its control stream.",
	ControlIgnored:    "Control frames of a type that we have no use for.",
	ClockSkews:        "Pings that were sent in our future, by the peer's clock.",
	SendErrors:        "Packets that the network refused to send, taken as lost.",
}

// Metrics counts what happens on any number of connections. The zero value is
// ready to use; a nil pointer counts nothing.
type Metrics struct {
	counters [numCounters]atomic.Uint64
}

func (m *Metrics) add(c Counter) {
	if m != nil {
		m.counters[c].Add(1)
	}
}

// Get is one counter's value.
func (m *Metrics) Get(c Counter) uint64 {
	if m == nil {
		return 0
	}
	return m.counters[c].Load()
}

// All iterates over the counters in order. Each value is read on its own:
// counters that move meanwhile are not seen at one instant.
func (m *Metrics) All() iter.Seq2[Counter, uint64] {
	return func(yield func(Counter, uint64) bool) {
		for c := range numCounters {
			if !yield(c, m.Get(c)) {
				return
			}
		}
	}
}
