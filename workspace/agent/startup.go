package agent

import (
	"sync"

	"github.com/tunneler/tunneler/events"
)

// progress is how far a step of the start has come.
type progress uint8

const (
	waiting progress = iota // it may still come in time
	late                    // its time is over, it may still come
	done                    // it has come
	failed                  // it never will
)

// startup is how the workspace fares while it starts: what its startup script
// and its services have come to, and the lifecycle that this amounts to.
type startup struct {
	// report is called with each change of the lifecycle, say with each thing
	// that goes wrong.
	report func(events.Lifecycle, error)
	say    func(error)

	mu    sync.Mutex
	steps []step
	last  events.Lifecycle
	err   error
}

type step struct {
	progress progress
	// awaited is set for what the workspace is not ready without.
	awaited bool
	err     error
}

// add adds a step before begin.
func (s *startup) add(awaited bool) int {
	s.steps = append(s.steps, step{awaited: awaited})
	return len(s.steps) - 1
}

// begin reports that the workspace is starting, and if nothing is awaited, that
// it is ready.
func (s *startup) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = events.LifecycleStarting
	s.report(events.LifecycleStarting, nil)
	s.update()
}

// set takes note of a step's progress; err says what is wrong with a late or
// failed one. What is done or has failed stays so.
func (s *startup) set(i int, p progress, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := &s.steps[i]; st.progress < done {
		st.progress, st.err = p, err
		if err != nil {
			s.say(err)
		}
		s.update()
	}
}

func (s *startup) update() {
	l, err := s.lifecycle()
	if l != s.last || err != s.err { //nolint:errorlint // the very same one
		s.last, s.err = l, err
		s.report(l, err)
	}
}

// lifecycle is what the steps amount to: a failure stays, whatever else comes
// true, and what is late is late until it comes.
func (s *startup) lifecycle() (events.Lifecycle, error) {
	l, err := events.LifecycleReady, error(nil)
	for _, st := range s.steps {
		switch {
		case st.progress == failed:
			return events.LifecycleStartError, st.err
		case st.progress == late && l != events.LifecycleStartTimeout:
			l, err = events.LifecycleStartTimeout, st.err
		case st.progress == waiting && st.awaited && l == events.LifecycleReady:
			l = events.LifecycleStarting
		}
	}
	return l, err
}
