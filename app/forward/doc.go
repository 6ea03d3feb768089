// Package forward runs TCP port forwards on a tunnel: it listens on local
// ports and carries every connection to a port on the workspace's side.
//
// An [App] owns its listeners for as long as it lives, whatever happens to the
// tunnel below it. A tunnel is handed over with [App.Attach] and taken away
// with [App.Detach]; while there is none, new connections wait, bounded in
// time and in number, and those that were in flight are reset, so that no
// client takes half an answer for a whole one.
//
// Each connection costs two goroutines. Half-close is carried both ways, and a
// reset on one side becomes a reset on the other.
//
// The package knows a tunnel only as a [Dialer]. It must not know what carries
// the bytes (transport), why a tunnel comes and goes (fsm) or what a workspace
// is; what an error of the tunnel means it asks through [Options.Explain] and
// [Options.Gone].
package forward
