package fsm

import "github.com/tunneler/tunneler/events"

// situation is what a guard or an action sees.
type situation struct {
	*model
	rules *rules
	ev    events.Event
	state State // the state in which the event came
}

// guard is a named condition; the name appears in graph and docs.
type guard struct {
	name  string
	holds func(*situation) bool
}

var (
	wantUp   = &guard{"want up", func(s *situation) bool { return !s.down }}
	wantDown = &guard{"want down", func(s *situation) bool { return s.down }}

	canStart = &guard{"can start", func(s *situation) bool { return s.mayStart(s.rules) && !s.starting }}
	mayStart = &guard{"may start", func(s *situation) bool { return s.mayStart(s.rules) }}
	starting = &guard{"start in flight", func(s *situation) bool { return s.starting }}
	ride     = &guard{"ride", func(s *situation) bool { return s.rules.onStop != OnStopExit }}
	everUp   = &guard{"ever up", func(s *situation) bool { return s.everUp }}

	agentReady   = &guard{"agent ready", func(s *situation) bool { return s.agentReady(s.rules) }}
	scriptFailed = &guard{"script failed, strict", func(s *situation) bool {
		return s.rules.strictScripts && s.agentCurrent() && s.agentBadStart()
	}}

	appHeld      = &guard{"app held", func(s *situation) bool { return s.appHeld }}
	connHeld     = &guard{"conn held", func(s *situation) bool { return s.connHeld }}
	dialCanceled = &guard{"dial cancelled", func(s *situation) bool { return s.dialCanceled }}

	sameBuild = &guard{"same build", func(s *situation) bool { return s.build.Number == s.target.build }}
	sameAgent = &guard{"same agent", func(s *situation) bool { return s.agent.ID == s.target.agent }}

	canRetry = &guard{"can retry", func(s *situation) bool {
		ev, ok := s.ev.(events.TailnetUpdate)
		if !ok || s.down || events.IsPermanent(ev.Err) {
			return false
		}
		return s.everUp || s.rules.maxAttempts == 0 || s.attempt < s.rules.maxAttempts
	}}

	// conflict: the start was refused only because another build is under way.
	conflict = &guard{"conflict", func(s *situation) bool {
		ev, ok := s.ev.(events.StartResult)
		return ok && ev.Conflict
	}}
	// overtaken: the build that the answer to our start names is over, and the
	// workspace is stopped, by what the watch has told before the answer came.
	overtaken = &guard{"overtaken by a stop", func(s *situation) bool {
		ev, ok := s.ev.(events.StartResult)
		return ok && ev.Err == nil && ev.Build > 0 && s.build.Number >= ev.Build &&
			s.buildIs(events.TransitionStop, events.JobSucceeded)
	}}

	watchGone     = &guard{"watch lost", func(s *situation) bool { return s.watch == events.WatchLost }}
	startedNow    = &guard{"started", func(s *situation) bool { return s.buildIs(events.TransitionStart, events.JobSucceeded) }}
	startUnderWay = &guard{"start under way", func(s *situation) bool { return s.buildActive(events.TransitionStart) }}
	stopUnderWay  = &guard{"stop under way", func(s *situation) bool { return s.buildActive(events.TransitionStop) }}
	stoppedNow    = &guard{"stopped", func(s *situation) bool { return s.buildIs(events.TransitionStop, events.JobSucceeded) }}
)

// either holds when one of two guards does.
func either(a, b *guard) *guard {
	return &guard{a.name + " or " + b.name, func(s *situation) bool { return a.holds(s) || b.holds(s) }}
}
