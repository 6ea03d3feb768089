package provision

import "sync"

// An Instance is one build's run of a workspace.
//
// Until Established is called it is on probation: when its process ends, the instance has ended, and Err says why.
// After that its process is kept running: it is started again, with a growing pause, each time that it ends by itself.
type Instance struct {
	ref         Ref
	pid         func() int
	onEstablish func()

	exited chan struct{}
	end    sync.Once
	err    error
}

// Ref names the instance.
func (i *Instance) Ref() Ref { return i.ref }

// PID is the process ID of the instance's process group and session; 0 while none runs, and for an agent that someone
// else starts.
func (i *Instance) PID() int {
	if i.pid == nil {
		return 0
	}
	return i.pid()
}

// Exited is closed when the instance has ended for good and nothing of it is left: its process ended on probation, or
// its workspace was stopped. Close does not close it. It blocks for ever for an agent that someone else starts.
func (i *Instance) Exited() <-chan struct{} { return i.exited }

// Err says why the instance ended, once Exited is closed: an *ExitError, or nil if it was stopped.
func (i *Instance) Err() error {
	select {
	case <-i.exited:
		return i.err
	default:
		return nil
	}
}

// Established says that the agent has reported: from now on the instance is kept running. It may be called again.
func (i *Instance) Established() {
	if i.onEstablish != nil {
		i.onEstablish()
	}
}

// settle ends the instance.
func (i *Instance) settle(err error) {
	i.end.Do(func() {
		i.err = err
		close(i.exited)
	})
}
