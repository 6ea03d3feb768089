package fsm

import "fmt"

// State is a state of the tunneler.
type State uint8

// The states, in the order in which a tunnel lives through them.
const (
	Init                    State = iota // init
	WaitToStart                          // waitToStart
	WaitForWorkspaceStarted              // waitForWorkspaceStarted
	WaitForAgent                         // waitForAgent
	EstablishTailnet                     // establishTailnet
	TailnetUp                            // tailnetUp
	ApplicationUp                        // applicationUp
	ShutdownApplication                  // shutdownApplication
	ShutdownTailnet                      // shutdownTailnet
	Exit                                 // exit

	// WaitForWorkspace and Shutdown are superstates: a Tunneler is never in
	// them, but in one of the states that they hold.
	WaitForWorkspace // waitForWorkspace
	Shutdown         // shutdown
)

const (
	numStates = int(Exit) + 1
	noParent  = State(255)
)

// MarshalText implements encoding.TextMarshaler.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Trigger is what an event amounts to: the columns of the published graph.
// One pure function, classify, turns an event into its trigger.
type Trigger uint8

// The triggers.
const (
	TriggerShutdown       Trigger = iota // shutdown
	TriggerAbort                         // abort
	TriggerTimeout                       // timeout
	TriggerDeleted                       // deleted
	TriggerBuildFailed                   // buildFailed
	TriggerStartActive                   // startActive
	TriggerStartSucceeded                // startSucceeded
	TriggerStopActive                    // stopActive
	TriggerStopSucceeded                 // stopSucceeded
	TriggerStartAccepted                 // startAccepted
	TriggerStartRefused                  // startRefused
	TriggerAgentReady                    // agentReady
	TriggerAgentStarting                 // agentStarting
	TriggerAgentBadStart                 // agentBadStart
	TriggerAgentGone                     // agentGone
	TriggerAgentCreated                  // agentCreated
	TriggerTailnetUp                     // tailnetUp
	TriggerTailnetDown                   // tailnetDown
	TriggerAppUp                         // appUp
	TriggerAppDown                       // appDown
	TriggerWatchUp                       // watchUp
	TriggerWatchRetrying                 // watchRetrying
	TriggerWatchLost                     // watchLost
	TriggerRetryDue                      // retryDue
	TriggerDeadline                      // deadline
	TriggerPathChanged                   // pathChanged
	TriggerLog                           // log
)

const numTriggers = int(TriggerLog) + 1

// MarshalText implements encoding.TextMarshaler.
func (t Trigger) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// OnStop is what the tunneler does when its workspace is stopped or replaced
// under a tunnel that was up.
type OnStop uint8

// The choices.
const (
	// OnStopExit ends the tunnel: one shot.
	OnStopExit OnStop = iota // exit
	// OnStopWait rides it out and waits until somebody starts the workspace.
	OnStopWait // wait
	// OnStopRestart starts the workspace again.
	OnStopRestart // restart
)

// ParseOnStop reads the name of a choice: exit, wait or restart.
func ParseOnStop(name string) (OnStop, error) {
	for o := OnStopExit; o <= OnStopRestart; o++ {
		if o.String() == name {
			return o, nil
		}
	}
	return 0, fmt.Errorf("unknown choice %q: expected exit, wait or restart", name)
}

// Outcome is how the machine took an event.
type Outcome uint8

// The outcomes.
const (
	Moved      Outcome = iota // moved
	Stayed                    // stayed
	Ignored                   // ignored
	Unexpected                // unexpected
	Stale                     // stale
	Replayed                  // replayed
)

// MarshalText implements encoding.TextMarshaler.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }
