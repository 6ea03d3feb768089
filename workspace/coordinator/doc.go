// Package coordinator is the control plane: the one source of truth on
// workspaces, builds and agents, spoken to over HTTP/JSON, the agent-connection
// watch and the agents' coordination channel (docs/protocol.md, sections 1 and
// 2).
//
// All that is true is in the store; a coordinator keeps nothing that a crash may
// not take. A workspace with its newest build and its agents is one record,
// changed by compare-and-set, so that any number of coordinators can work on
// one store and whoever watches a record sees no state that never was. What a
// change needs done, whoever made it, is read off the records.
//
// It must not know how a process is run (package provision), what an agent does
// with a script (package agent), what a tunnel is made of, or how its own
// process is configured, listens or ends (cmd).
package coordinator
