// Package tailnet is the end-to-end encrypted connection between a tunneler
// (the QUIC client, see [Dial]) and a workspace's agent (the QUIC server, see
// [Listen]), and the streams and UDP flows that ride on it (docs/protocol.md,
// section 3).
//
// Both sides are known to each other by the hash of a key that lives as long
// as one session; who may learn which hash is the coordinator's business. So
// this package must not know of coordinators, workspaces, tokens or gateways,
// nor of what an application does with a stream: it dials no target itself.
//
// One [Conn] is one QUIC connection. Its first stream is the control stream,
// which carries pings, drain and the reason of a close; every other stream is
// opened by the tunneler to a target at the agent's side. What carries the
// packets is a path. A path is a [net.PacketConn] to this package, so that
// another kind of path changes nothing in its interface.
package tailnet
