// Package agent is the process inside a workspace that tunnels end at.
//
// It says hello to the coordinator over its channel, runs the template's
// startup script, keeps its services, streams their output as its log, reports
// every state of its life as it is, and takes tailnet connections, whose
// streams it connects to targets on its side. When it is told to end it runs
// the shutdown script and leaves no process behind.
//
// It must not know how it was started, or what a coordinator does with what it
// is told.
package agent
