// Package tunneler is the root of a tunnel for developers: `tunnel up
// WORKSPACE` starts a workspace if need be, waits for its agent, brings up an
// end-to-end encrypted QUIC connection, runs an application on it and rides
// out what happens to real people.
//
// The rooms of the house, each with its own documentation:
//
//   - cmd/tunnel: the program, and the only place that wires the parts together
//   - fsm: the tunneler, a declared state machine with its loop
//   - events: the machine's events and every wire message with its codec
//   - transport: how bytes travel (tailnet, channel)
//   - app: what runs on a tunnel (forward)
//   - workspace: the far side (coordinator, agent, provision, store, client)
//
// This package itself holds nothing but the test of who may import whom.
package tunneler
