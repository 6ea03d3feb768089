package fsm

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// story is one line of the specification: in this state, with these rules and
// this memory, when this is told, then that state, those effects and those
// changes of memory. The stories are written by hand, from what a user of a
// tunnel would want, and not from the table: they are what the table is held
// against. notation_test.go has the words.
type story struct {
	says   string
	in     State
	given  string // rules; model
	event  string
	then   State
	does   string
	change string
}

// The models that most stories begin with.
const (
	stopping   = "build=1:stop/running"
	isStopped  = "build=1:stop/succeeded"
	building   = "build=1:start/running"
	asked      = "build=1:stop/succeeded starting"
	isStarted  = "build=1:start/succeeded"
	backingOff = "build=1:start/succeeded agent=a@1:ready target=a@1 attempt=1 dialErr=dial"
	dialling   = "build=1:start/succeeded agent=a@1:ready target=a@1 dialing attempt=1"
	connected  = "build=1:start/succeeded agent=a@1:ready target=a@1 conn appStarting attempt=1"
	tunnelUp   = "build=1:start/succeeded agent=a@1:ready target=a@1 conn app everUp attempt=1"
	redialling = "build=1:start/succeeded agent=a@1:ready target=a@1 dialing app everUp attempt=1"
)

func (s *story) read(t *testing.T) scene {
	rulesText, modelText, both := strings.Cut(s.given, ";")
	if !both {
		rulesText, modelText = "", s.given
	}
	return scene{state: s.in, rules: readRules(t, rulesText), model: readModel(t, modelText), ev: s.event}
}

func tell(t *testing.T, stories []story) {
	for _, s := range stories {
		t.Run(s.in.String()+": "+s.says, func(t *testing.T) {
			sc := s.read(t)
			for name, move := range map[string]engine{"fire": fire, "walk": walk} {
				m, res := sc.play(t, move)
				require.Equal(t, s.then.String(), m.state.String(), name)
				require.Equal(t, s.does, showEffects(res.effects), name)
				require.Equal(t, s.change, showChange(sc.model, m.model), name)
			}
		})
	}
}

var allStories = [][]story{initStories, waitStories, agentStories, dialStories, upStories, downStories, resumeStories}

func TestStoriesOfInit(t *testing.T)                 { tell(t, initStories) }
func TestStoriesOfWaitingForAWorkspace(t *testing.T) { tell(t, waitStories) }
func TestStoriesOfWaitingForAnAgent(t *testing.T)    { tell(t, agentStories) }

// TestStoriesCoverTheTable: each row in some state, each state in most rows.
func TestStoriesCoverTheTable(t *testing.T) {
	cells := make(map[[2]int]bool)
	n := 0
	for _, list := range allStories {
		for _, s := range list {
			n++
			sc := s.read(t)
			tr, _ := classify(&sc.model, readEvent(t, s.event))
			cells[[2]int{int(s.in), int(tr)}] = true
		}
	}
	rows, columns := make(map[int]int), make(map[int]int)
	for c := range cells {
		columns[c[0]]++
		rows[c[1]]++
	}
	require.Len(t, rows, numTriggers, "a row has no story")
	for s := range State(numStates - 1) {
		require.Greater(t, columns[int(s)], 10, "%s has few stories", s)
	}
	require.GreaterOrEqual(t, len(cells), 120)
	t.Logf("%d stories tell of %d cells", n, len(cells))
}

var initStories = []story{
	{"a shutdown ends it", Init, "", "shutdown", Exit, "cancelTimers finish", "down=shutdown@init"},
	{"an abort ends it at once", Init, "", "abort,err=owner", Exit, "cancelTimers abort finish", "down=aborted@init:owner"},
	{"the whole way up has a time-out", Init, "", "timeout", Exit, "cancelTimers finish", "down=timeout@init"},
	{"a watch that never speaks does not keep it for ever", Init, "", "deadline", Exit, "cancelTimers finish", "down=timeout@init"},
	{"a watch that cannot succeed ends it", Init, "", "watch=lost,err=watch", Exit, "cancelTimers finish", "down=watch@init:watch watch=lost watchErr=watch"},
	{"a watch that tries again is told of", Init, "", "watch=retrying,err=watch", Init, "report", "watch=retrying watchErr=watch"},
	{"a watch that is up is only the beginning", Init, "", "watch=up", Init, "", "watch=up"},
	{"a deleted workspace is none", Init, "", "build=1:delete/succeeded", Exit, "cancelTimers finish", "down=deleted@init build=1:delete/succeeded"},
	{"a workspace that is being deleted is as good as deleted", Init, "", "build=1:delete/pending", Exit, "cancelTimers finish", "down=deleted@init build=1:delete/pending"},
	{"a stopped workspace is started", Init, "", "build=0:stop/succeeded", WaitForWorkspaceStarted, "cancelTimers startWorkspace armDeadline=waitForWorkspaceStarted", "build=0:stop/succeeded starting"},
	{"a stopped workspace is left alone without autostart", Init, "noAutostart;", "build=1:stop/succeeded", Exit, "cancelTimers finish", "down=stopped@init build=1:stop/succeeded"},
	{"nor is it waited for by one that was never up", Init, "noAutostart onStop=wait;", "build=1:stop/succeeded", Exit, "cancelTimers finish", "down=stopped@init build=1:stop/succeeded"},
	{"a workspace that is stopping is waited for", Init, "", "build=1:stop/running", WaitToStart, "cancelTimers armDeadline=waitToStart", "build=1:stop/running"},
	{"canceling is not the end of a stop", Init, "", "build=1:stop/canceling", WaitToStart, "cancelTimers armDeadline=waitToStart", "build=1:stop/canceling"},
	{"a workspace that is stopping is of no use without autostart", Init, "noAutostart;", "build=1:stop/running", Exit, "cancelTimers finish", "down=stopped@init build=1:stop/running"},
	{"whoever rides out stops rides out this one", Init, "noAutostart onStop=wait;", "build=1:stop/running", WaitToStart, "cancelTimers armDeadline=waitToStart", "build=1:stop/running"},
	{"a start under way is followed", Init, "", "build=1:start/pending", WaitForWorkspaceStarted, "cancelTimers armDeadline=waitForWorkspaceStarted", "build=1:start/pending"},
	{"a start that is being cancelled is still under way", Init, "", "build=1:start/canceling", WaitForWorkspaceStarted, "cancelTimers armDeadline=waitForWorkspaceStarted", "build=1:start/canceling"},
	{"a start that was done long ago leaves only the agent", Init, "", "build=1:start/succeeded", WaitForAgent, "cancelTimers armDeadline=waitForAgent", "build=1:start/succeeded"},
	{"an agent that was told of first is not forgotten", Init, "agent=a@1:ready", "build=1:start/succeeded", EstablishTailnet, "cancelTimers dial=a@1#1 armDeadline=establishTailnet", "build=1:start/succeeded target=a@1 dialing attempt=1"},
	{"nor is one whose script has failed, when strict", Init, "strict; agent=a@1:start_error", "build=1:start/succeeded", Exit, "cancelTimers finish", "down=script@init build=1:start/succeeded"},
	{"an old failure is a reason to start", Init, "", "build=1:start/failed", WaitForWorkspaceStarted, "cancelTimers startWorkspace armDeadline=waitForWorkspaceStarted", "build=1:start/failed starting"},
	{"so is a start that was cancelled", Init, "", "build=1:start/canceled", WaitForWorkspaceStarted, "cancelTimers startWorkspace armDeadline=waitForWorkspaceStarted", "build=1:start/canceled starting"},
	{"an old failure is the end without autostart", Init, "noAutostart;", "build=1:start/failed", Exit, "cancelTimers finish", "down=failed@init:BuildError(1) build=1:start/failed"},
	{"an agent alone is remembered", Init, "", "agent=a@1:ready", Init, "", "agent=a@1:ready"},
	{"a connection that nobody dialled is closed", Init, "", "tailnet=up", Init, "closeHanded", ""},
	{"an application that nobody started is closed", Init, "", "app=up", Init, "closeHanded", ""},
	{"the end of nothing is unexpected", Init, "", "tailnet=down,err=dial", Init, "", ""},
	{"a log line is for people", Init, "", "buildLog", Init, "report", ""},
	{"a path is for people", Init, "", "path", Init, "report", ""},
	{"an old timer means nothing", Init, "", "retryDue", Init, "", ""},
}

var waitStories = []story{
	// waitToStart
	{"a shutdown ends it", WaitToStart, stopping, "shutdown", Exit, "cancelTimers finish", "down=shutdown@waitToStart"},
	{"an application that waits is closed first", WaitToStart, isStopped + " app everUp", "shutdown", ShutdownApplication, "cancelTimers closeApp armDeadline=shutdownApplication", "down=shutdown@waitToStart appClosing"},
	{"an abort asks nobody", WaitToStart, isStopped + " app everUp", "abort", Exit, "cancelTimers abort finish", "down=aborted@waitToStart"},
	{"the whole way up has a time-out", WaitToStart, stopping, "timeout", Exit, "cancelTimers finish", "down=timeout@waitToStart"},
	{"which is over once it has been up", WaitToStart, "onStop=wait; " + isStopped + " app everUp", "timeout", WaitToStart, "", ""},
	{"a stop that takes too long ends it", WaitToStart, stopping, "deadline", Exit, "cancelTimers finish", "down=timeout@waitToStart"},
	{"a deletion ends it", WaitToStart, "onStop=wait; " + isStopped + " app everUp", "build=2:delete/running", ShutdownApplication, "cancelTimers closeApp armDeadline=shutdownApplication", "down=deleted@waitToStart build=2:delete/running appClosing"},
	{"a stop that fails ends it", WaitToStart, stopping, "build=1:stop/failed", Exit, "cancelTimers finish", "down=failed@waitToStart:BuildError(1) build=1:stop/failed"},
	{"somebody starts the workspace", WaitToStart, "onStop=wait; " + isStopped + " app everUp", "build=2:start/running", WaitForWorkspaceStarted, "cancelTimers", "build=2:start/running"},
	{"somebody has started it, as collapsed updates tell", WaitToStart, stopping, "build=2:start/succeeded", WaitForAgent, "cancelTimers armDeadline=waitForAgent", "build=2:start/succeeded"},
	{"a stop goes on", WaitToStart, "build=1:stop/pending", "build=1:stop/running", WaitToStart, "", "build=1:stop/running"},
	{"once stopped it is started", WaitToStart, stopping, "build=1:stop/succeeded", WaitForWorkspaceStarted, "cancelTimers startWorkspace armDeadline=waitForWorkspaceStarted", "build=1:stop/succeeded starting"},
	{"a start that is in flight is not asked for twice", WaitToStart, stopping + " starting", "build=1:stop/succeeded", WaitForWorkspaceStarted, "cancelTimers armDeadline=waitForWorkspaceStarted", "build=1:stop/succeeded"},
	{"a reconnect does not start what its user has stopped", WaitToStart, "onStop=wait; " + stopping + " app everUp", "build=1:stop/succeeded", WaitToStart, "", "build=1:stop/succeeded"},
	{"unless it is told to restart it", WaitToStart, "onStop=restart; " + stopping + " app everUp", "build=1:stop/succeeded", WaitForWorkspaceStarted, "cancelTimers startWorkspace", "build=1:stop/succeeded starting"},
	{"one that may not start it and was never up leaves", WaitToStart, "noAutostart onStop=wait; " + stopping, "build=1:stop/succeeded", Exit, "cancelTimers finish", "down=stopped@waitToStart build=1:stop/succeeded"},
	{"the answer to an old start is noted", WaitToStart, stopping + " starting", "conflict=1", WaitToStart, "", "-starting"},
	{"a refusal of an old start too", WaitToStart, stopping + " starting", "refused,err=refused", WaitToStart, "", "-starting"},
	{"an agent is remembered", WaitToStart, stopping, "agent=a@1:off", WaitToStart, "", "agent=a@1:off"},
	{"an application that dies ends it", WaitToStart, "onStop=wait; " + isStopped + " app everUp", "app=down,err=app", Exit, "cancelTimers finish", "down=app@waitToStart:app -app"},
	{"the end of no application is unexpected", WaitToStart, stopping, "app=down,err=app", WaitToStart, "", ""},
	{"a lost watch leaves nothing to wait for", WaitToStart, stopping, "watch=lost,err=watch", Exit, "cancelTimers finish", "down=watch@waitToStart:watch watch=lost watchErr=watch"},
	{"a connection that nobody dialled is closed", WaitToStart, stopping, "tailnet=up", WaitToStart, "closeHanded", ""},
	{"a log line is for people", WaitToStart, stopping, "buildLog", WaitToStart, "report", ""},
	// waitForWorkspaceStarted
	{"a shutdown ends it", WaitForWorkspaceStarted, asked, "shutdown", Exit, "cancelTimers finish", "down=shutdown@waitForWorkspaceStarted"},
	{"the whole way up has a time-out", WaitForWorkspaceStarted, building, "timeout", Exit, "cancelTimers finish", "down=timeout@waitForWorkspaceStarted"},
	{"a start that takes too long ends it", WaitForWorkspaceStarted, building, "deadline", Exit, "cancelTimers finish", "down=timeout@waitForWorkspaceStarted"},
	{"a start that fails ends it", WaitForWorkspaceStarted, building, "build=1:start/failed", Exit, "cancelTimers finish", "down=failed@waitForWorkspaceStarted:BuildError(1) build=1:start/failed"},
	{"a start that is cancelled ends it", WaitForWorkspaceStarted, building, "build=1:start/canceled", Exit, "cancelTimers finish", "down=failed@waitForWorkspaceStarted:BuildError(1) build=1:start/canceled"},
	{"canceling is not the end of a start", WaitForWorkspaceStarted, building, "build=1:start/canceling", WaitForWorkspaceStarted, "", "build=1:start/canceling"},
	{"a deletion ends it", WaitForWorkspaceStarted, building, "build=2:delete/running", Exit, "cancelTimers finish", "down=deleted@waitForWorkspaceStarted build=2:delete/running"},
	{"our start is accepted", WaitForWorkspaceStarted, asked, "accepted=2", WaitForWorkspaceStarted, "", "-starting"},
	{"an answer that names no build says nothing of the watch", WaitForWorkspaceStarted, asked, "accepted=0", WaitForWorkspaceStarted, "", "-starting"},
	{"our start shows in the watch", WaitForWorkspaceStarted, asked, "build=2:start/pending", WaitForWorkspaceStarted, "", "build=2:start/pending"},
	{"our start was accepted and is already stopped again", WaitForWorkspaceStarted, "build=3:stop/succeeded starting", "accepted=2", WaitForWorkspaceStarted, "startWorkspace", ""},
	{"somebody else's start is in the way, which is as good", WaitForWorkspaceStarted, asked, "conflict=2", WaitForWorkspaceStarted, "", "-starting"},
	{"what was in the way is over: it was a stop", WaitForWorkspaceStarted, "build=2:stop/succeeded starting", "conflict=2", WaitForWorkspaceStarted, "startWorkspace", ""},
	{"what was in the way is over, and we wait for others", WaitForWorkspaceStarted, "onStop=wait; build=2:stop/succeeded app starting everUp", "conflict=2", WaitToStart, "cancelTimers", "-starting"},
	{"a refused start ends it", WaitForWorkspaceStarted, asked, "refused,err=refused", Exit, "cancelTimers finish", "down=start refused@waitForWorkspaceStarted:refused -starting"},
	{"a refused start ends an application that waits", WaitForWorkspaceStarted, "onStop=restart; build=1:stop/succeeded app starting everUp", "refused,err=refused", ShutdownApplication, "cancelTimers closeApp armDeadline=shutdownApplication", "down=start refused@waitForWorkspaceStarted:refused appClosing -starting"},
	{"a refusal matters not while somebody else's start is under way", WaitForWorkspaceStarted, "build=2:start/running starting", "refused,err=refused", WaitForWorkspaceStarted, "", "-starting"},
	{"the start succeeds", WaitForWorkspaceStarted, building, "build=1:start/succeeded", WaitForAgent, "cancelTimers armDeadline=waitForAgent", "build=1:start/succeeded"},
	{"an agent that was ready before its build was done is dialled", WaitForWorkspaceStarted, building + " agent=a@1:ready", "build=1:start/succeeded", EstablishTailnet, "cancelTimers dial=a@1#1 armDeadline=establishTailnet", "build=1:start/succeeded target=a@1 dialing attempt=1"},
	{"an agent of an older build is not", WaitForWorkspaceStarted, "build=2:start/running agent=a@1:ready", "build=2:start/succeeded", WaitForAgent, "cancelTimers armDeadline=waitForAgent", "build=2:start/succeeded"},
	{"an agent whose script failed before its build was done ends it, when strict", WaitForWorkspaceStarted, "strict; " + building + " agent=a@1:start_error", "build=1:start/succeeded", Exit, "cancelTimers finish", "down=script@waitForWorkspaceStarted build=1:start/succeeded"},
	{"somebody stops it again, and we may start it", WaitForWorkspaceStarted, building, "build=2:stop/running", WaitToStart, "cancelTimers armDeadline=waitToStart", "build=2:stop/running"},
	{"somebody stops it again while our own start is in flight", WaitForWorkspaceStarted, asked, "build=2:stop/running", WaitToStart, "cancelTimers armDeadline=waitToStart", "build=2:stop/running"},
	{"somebody stops it again, and we may not", WaitForWorkspaceStarted, "noAutostart; " + building, "build=2:stop/running", Exit, "cancelTimers finish", "down=stopped@waitForWorkspaceStarted build=2:stop/running"},
	{"it is stopped, as collapsed updates tell", WaitForWorkspaceStarted, building, "build=2:stop/succeeded", WaitForWorkspaceStarted, "startWorkspace", "build=2:stop/succeeded starting"},
	{"it is stopped, and our start is in flight", WaitForWorkspaceStarted, "build=1:start/running starting", "build=2:stop/succeeded", WaitForWorkspaceStarted, "", "build=2:stop/succeeded"},
	{"it is stopped, and we wait for others", WaitForWorkspaceStarted, "onStop=wait; build=1:start/running app everUp", "build=2:stop/succeeded", WaitToStart, "cancelTimers", "build=2:stop/succeeded"},
	{"it is stopped, and we may not start it", WaitForWorkspaceStarted, "noAutostart; " + building, "build=2:stop/succeeded", Exit, "cancelTimers finish", "down=stopped@waitForWorkspaceStarted build=2:stop/succeeded"},
	{"an agent that is ready too early is remembered", WaitForWorkspaceStarted, building, "agent=a@1:ready", WaitForWorkspaceStarted, "", "agent=a@1:ready"},
	{"an application that dies ends it", WaitForWorkspaceStarted, "onStop=wait; build=2:start/running app everUp", "app=down", Exit, "cancelTimers finish", "down=app@waitForWorkspaceStarted -app"},
	{"an abort asks nobody", WaitForWorkspaceStarted, asked, "abort", Exit, "cancelTimers abort finish", "down=aborted@waitForWorkspaceStarted"},
	{"a lost watch leaves nothing to wait for", WaitForWorkspaceStarted, asked, "watch=lost,err=watch", Exit, "cancelTimers finish", "down=watch@waitForWorkspaceStarted:watch watch=lost watchErr=watch"},
	{"an older build is old news", WaitForWorkspaceStarted, "build=3:start/running", "build=2:delete/succeeded", WaitForWorkspaceStarted, "", ""},
	{"what is known is no news", WaitForWorkspaceStarted, building, "build=1:start/running", WaitForWorkspaceStarted, "", ""},
}
