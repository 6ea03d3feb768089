package fsm

import (
	"io"

	"github.com/tunneler/tunneler/events"
)

// EffectKind is what the machine wants done in the world.
type EffectKind uint8

// The effects. Those marked * take time and post exactly one answer.
const (
	EffectStartWorkspace EffectKind = iota // startWorkspace
	EffectDial                             // dial
	EffectCancelDial                       // cancelDial
	EffectStartApp                         // startApp
	EffectCancelAppStart                   // cancelAppStart
	EffectCloseApp                         // closeApp
	EffectAttach                           // attach
	EffectDetach                           // detach
	EffectCloseConn                        // closeConn
	EffectCloseHanded                      // closeHanded
	EffectArmRetry                         // armRetry
	EffectArmDeadline                      // armDeadline
	EffectCancelTimers                     // cancelTimers
	EffectReport                           // report
	EffectAbort                            // abort
	EffectFinish                           // finish
)

// Effect is one thing to do, as a value. A machine returns effects; only the
// loop performs them.
type Effect struct {
	Kind EffectKind
	// Agent and Build say what to dial.
	Agent string
	Build int64
	// Attempt is the number of the dial, from 1, or for EffectArmRetry that of
	// the one that went before.
	Attempt int
	// State is the state whose deadline is armed.
	State State
	// Handle is what an unexpected event handed over, to be closed.
	Handle io.Closer
}

// action is a named pure function over the model that may emit effects; the
// name appears in graph and docs.
type action struct {
	name string
	run  func(*situation, *[]Effect)
}

// emit is an action that emits one effect and changes nothing.
func emit(k EffectKind) *action {
	return &action{k.String(), func(_ *situation, out *[]Effect) { *out = append(*out, Effect{Kind: k}) }}
}

var (
	attach       = emit(EffectAttach)
	detach       = emit(EffectDetach)
	closeConn    = emit(EffectCloseConn)
	cancelTimers = emit(EffectCancelTimers)
	report       = emit(EffectReport)
	abort        = emit(EffectAbort)
	finish       = emit(EffectFinish)

	startWorkspace = &action{"startWorkspace", func(s *situation, out *[]Effect) {
		s.starting = true
		*out = append(*out, Effect{Kind: EffectStartWorkspace})
	}}
	dial = &action{"dial", func(s *situation, out *[]Effect) {
		s.dialing, s.dialCanceled = true, false
		s.attempt++
		s.target = target{agent: s.agent.ID, build: s.build.Number}
		*out = append(*out, Effect{Kind: EffectDial, Agent: s.target.agent, Build: s.target.build, Attempt: s.attempt})
	}}
	// cancelDial does nothing to a dial that is cancelled already.
	cancelDial = &action{"cancelDial", func(s *situation, out *[]Effect) {
		if s.dialing && !s.dialCanceled {
			s.dialCanceled = true
			*out = append(*out, Effect{Kind: EffectCancelDial})
		}
	}}
	startApp = &action{"startApp", func(s *situation, out *[]Effect) {
		s.appStarting = true
		*out = append(*out, Effect{Kind: EffectStartApp})
	}}
	cancelAppStart = &action{"cancelAppStart", func(s *situation, out *[]Effect) {
		if s.appStarting {
			*out = append(*out, Effect{Kind: EffectCancelAppStart})
		}
	}}
	closeApp = &action{"closeApp", func(s *situation, out *[]Effect) {
		if s.appHeld && !s.appClosing {
			s.appClosing = true
			*out = append(*out, Effect{Kind: EffectCloseApp})
		}
	}}
	armRetry = &action{"armRetry", func(s *situation, out *[]Effect) {
		*out = append(*out, Effect{Kind: EffectArmRetry, Attempt: s.attempt})
	}}
	// armDeadline arms nothing while a tunnel that was up waits for somebody to
	// mend the workspace: that may take as long as it takes.
	armDeadline = &action{"armDeadline", func(s *situation, out *[]Effect) {
		if s.waiting() && s.everUp && s.rules.onStop != OnStopExit {
			return
		}
		*out = append(*out, Effect{Kind: EffectArmDeadline, State: s.state})
	}}
	// markUp remembers that the tunnel has worked.
	markUp = &action{"markUp", func(s *situation, _ *[]Effect) { s.everUp = true }}

	// closeHanded closes what an unexpected event brought.
	closeHanded = &action{"closeHanded", func(s *situation, out *[]Effect) {
		var handle io.Closer
		switch ev := s.ev.(type) {
		case events.TailnetUpdate:
			handle = ev.Conn
		case events.AppUpdate:
			handle = ev.App
		}
		if handle != nil {
			*out = append(*out, Effect{Kind: EffectCloseHanded, Handle: handle})
		}
	}}

	// downBySnapshot goes down for what the build snapshot says.
	downBySnapshot = &action{"DOWN(by snapshot)", func(s *situation, _ *[]Effect) {
		switch {
		case s.build.Status == events.JobFailed || s.build.Status == events.JobCanceled:
			s.goDown(ReasonBuildFailed)
		case s.build.Transition == events.TransitionDelete:
			s.goDown(ReasonDeleted)
		default:
			s.goDown(ReasonStopped)
		}
	}}
)

// down sets want = down. The first cause stands.
func down(r Reason) *action {
	name := "DOWN"
	if r != ReasonNone {
		name = "DOWN(" + r.String() + ")"
	}
	return &action{name, func(s *situation, _ *[]Effect) { s.goDown(r) }}
}

// waiting: the state holds no connection and dials none.
func (s *situation) waiting() bool {
	return s.state == WaitToStart || s.state == WaitForWorkspaceStarted || s.state == WaitForAgent
}

func (s *situation) goDown(r Reason) {
	if s.down {
		return
	}
	s.down, s.cause, s.causeState, s.causeErr = true, r, s.state, s.causeOf(r)
}

// causeOf is the detail of a reason, where there is more to say. It goes by the
// reason: the event that makes us look may be about something else.
func (s *situation) causeOf(r Reason) error {
	switch r {
	case ReasonBuildFailed:
		return &BuildError{Number: s.build.Number, Transition: s.build.Transition, Canceled: s.build.Status == events.JobCanceled, Message: s.build.Error}
	case ReasonWatch:
		return s.watchErr
	case ReasonTimeout:
		return s.lastDialErr
	case ReasonAborted, ReasonStartRefused, ReasonDial, ReasonLost, ReasonApp:
		return errorOf(s.ev)
	default:
		return nil
	}
}

// errorOf is the error that an event brings along.
func errorOf(ev events.Event) error {
	switch ev := ev.(type) {
	case events.Abort:
		return ev.Err
	case events.StartResult:
		return ev.Err
	case events.TailnetUpdate:
		return ev.Err
	case events.AppUpdate:
		return ev.Err
	default:
		return nil
	}
}
