// Package channel is the coordination channel between an agent and its
// coordinator (docs/protocol.md, section 2): one long-lived WebSocket, both
// halves of it.
//
// [Client] is the agent's half. It connects, says hello, and connects again
// whenever the connection is lost, for as long as that can help. What was given
// to it to send waits for the next connection, and what was sent on a connection
// that broke is sent again if its loss would matter. [Accept] makes the
// coordinator's half, a [ServerConn], of an HTTP request.
//
// The package carries messages and answers those that concern the channel
// itself: hello, clocks, organisation. It must not know what a workspace, a
// build or a tunnel is, who may connect, or where logs are stored: its owner
// decides on a hello and handles everything else.
package channel
