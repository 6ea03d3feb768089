// Package client is the Go client of the coordinator's HTTP API: one typed
// method for each route, and the two streams, watch and logs, that reconnect
// by themselves and deliver each line once.
//
// It knows the API and how to try again. It must not know what a workspace is
// good for: no state machine, no tunnel, no files, and no process-wide state.
package client
