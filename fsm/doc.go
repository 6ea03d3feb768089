// Package fsm is the tunneler: the state machine that brings a tunnel to a
// workspace up, keeps it up and takes it down.
//
// One declared table (table.go) says for every state and every trigger which
// guard leads where and with which effects; nothing else decides. A machine is
// a pure step over a plain model: an event goes in, effects come out as
// values. A Tunneler runs one machine in one goroutine, performs the effects
// in goroutines that only post events back, and never does I/O itself.
//
// The package knows nothing of networks, of the coordinator or of the
// applications: what it needs from the world it declares as the interfaces
// Client, Conn and App.
package fsm

//go:generate go tool stringer -type=State,Trigger,Reason,OnStop,EffectKind,Outcome -linecomment -output=string.go
