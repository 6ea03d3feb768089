// Package events holds everything that is said in tunneler: the events of the
// client's state machine and every wire message with its codec.
//
// It is the vocabulary that the other packages share, so it imports none of
// them, and it knows nothing of sockets, clocks or stores: a codec turns bytes
// into values and values into bytes, and refuses what breaks a limit. No
// message of a released version is ever edited; a new shape is a new version.
package events

//go:generate go tool stringer -type=Transition,JobStatus,Lifecycle,AgentStatus,LogLevel,WatchState,PathKind,Network,ReplyCode,CloseCode -linecomment -output=enum_string.go
