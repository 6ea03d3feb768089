package fsm

// This file is the machine: the declared table of states, triggers, guards,
// targets and effects. Everything else walks it: the compiled machine, its
// checks, the graphs and docs/states.md. The words it is written in are in
// words.go.

var states = [numStates]stateDecl{
	Init: timed(noParent,
		"nothing heard from the watch yet"),
	WaitToStart: timed(WaitForWorkspace,
		"the workspace must finish a stop before it can be started, or it is stopped and we wait for somebody to start it"),
	WaitForWorkspaceStarted: timed(WaitForWorkspace,
		"a start build is under way, ours or another's"),
	WaitForAgent: timed(noParent,
		"the build succeeded; the agent is not connectable yet, or a backoff runs before the next dial"),
	EstablishTailnet: timed(noParent,
		"a dial is in flight"),
	TailnetUp: timed(noParent,
		"the tailnet is up, the application is starting"),
	ApplicationUp: {
		meaning: "the tunnel works", parent: noParent, entry: []*action{markUp}},
	ShutdownApplication: timed(Shutdown,
		"the application is starting or closing and will report; we wait for that"),
	ShutdownTailnet: timed(Shutdown,
		"the tailnet is dialling or closing and will report; we wait for that"),
	Exit: {
		meaning: "final: everything is closed", parent: noParent, entry: []*action{finish}},
}

var table = []row{
	{
		on: TriggerShutdown,
		in: cell{to(Exit, down(ReasonNone))},
		ws: leave(down(ReasonNone)),
		ww: leave(down(ReasonNone)),
		wa: leave(down(ReasonNone)),
		et: cell{to(ShutdownTailnet, down(ReasonNone), cancelDial)},
		tu: cell{to(ShutdownApplication, down(ReasonNone), cancelAppStart)},
		au: cell{to(ShutdownApplication, down(ReasonNone), closeApp)},
		sa: cell{stay(down(ReasonNone))},
		st: cell{stay(down(ReasonNone))},
	},
	{
		on: TriggerAbort,
		in: cell{to(Exit, down(ReasonAborted), abort)},
		ws: cell{to(Exit, down(ReasonAborted), abort)},
		ww: cell{to(Exit, down(ReasonAborted), abort)},
		wa: cell{to(Exit, down(ReasonAborted), abort)},
		et: cell{to(Exit, down(ReasonAborted), abort)},
		tu: cell{to(Exit, down(ReasonAborted), abort)},
		au: cell{to(Exit, down(ReasonAborted), abort)},
		sa: cell{to(Exit, down(ReasonAborted), abort)},
		st: cell{to(Exit, down(ReasonAborted), abort)},
	},
	{
		// The whole of the way up has a time-out too; once up, it is over.
		on: TriggerTimeout,
		in: cell{to(Exit, down(ReasonTimeout))},
		ws: seq(cell{when(stay(), everUp)}, leave(down(ReasonTimeout))),
		ww: seq(cell{when(stay(), everUp)}, leave(down(ReasonTimeout))),
		wa: seq(cell{when(stay(), everUp)}, leave(down(ReasonTimeout))),
		et: cell{when(stay(), everUp), to(ShutdownTailnet, down(ReasonTimeout), cancelDial)},
		tu: cell{when(stay(), everUp), to(ShutdownApplication, down(ReasonTimeout), cancelAppStart)},
		au: noop,
		sa: cell{when(stay(), everUp), stay(down(ReasonTimeout))},
		st: cell{when(stay(), everUp), stay(down(ReasonTimeout))},
	},
	{
		on: TriggerDeleted,
		in: cell{to(Exit, down(ReasonDeleted))},
		ws: leave(down(ReasonDeleted)),
		ww: leave(down(ReasonDeleted)),
		wa: leave(down(ReasonDeleted)),
		et: cell{to(ShutdownTailnet, down(ReasonDeleted), cancelDial)},
		tu: cell{to(ShutdownApplication, down(ReasonDeleted), cancelAppStart)},
		au: cell{to(ShutdownApplication, down(ReasonDeleted), closeApp)},
		sa: cell{stay(down(ReasonDeleted))},
		st: cell{stay(down(ReasonDeleted))},
	},
	{
		// A failure that was there before we came is a reason to start, not to give up.
		on: TriggerBuildFailed,
		in: cell{when(to(WaitForWorkspaceStarted, startWorkspace), canStart), to(Exit, down(ReasonBuildFailed))},
		ws: leave(down(ReasonBuildFailed)),
		ww: leave(down(ReasonBuildFailed)),
		wa: leave(down(ReasonBuildFailed)),
		et: reported,
		tu: reported,
		au: reported,
		sa: noop,
		st: noop,
	},
	{
		on: TriggerStartActive,
		in: cell{to(WaitForWorkspaceStarted)},
		ws: cell{to(WaitForWorkspaceStarted)},
		ww: noop,
		wa: cell{to(WaitForWorkspaceStarted)},
		et: cell{when(stay(), sameBuild), to(ShutdownTailnet, cancelDial)},
		tu: cell{when(stay(), sameBuild), to(ShutdownApplication, cancelAppStart)},
		au: seq(cell{when(stay(), sameBuild)}, replaced),
		sa: noop,
		st: noop,
	},
	{
		on: TriggerStartSucceeded,
		in: cell{when(to(EstablishTailnet, dial), agentReady), when(to(Exit, down(ReasonScript)), scriptFailed), to(WaitForAgent)},
		ws: connectOr(to(WaitForAgent)),
		ww: connectOr(to(WaitForAgent)),
		wa: connectOr(stay()),
		et: cell{when(stay(), sameBuild), to(ShutdownTailnet, cancelDial)},
		tu: cell{when(stay(), sameBuild), to(ShutdownApplication, cancelAppStart)},
		au: seq(cell{when(stay(), sameBuild)}, replaced),
		sa: noop,
		st: noop,
	},
	{
		on: TriggerStopActive,
		in: cell{when(to(WaitToStart), either(mayStart, ride)), to(Exit, down(ReasonStopped))},
		ws: noop,
		ww: seq(cell{when(to(WaitToStart), either(mayStart, ride))}, leave(down(ReasonStopped))),
		wa: seq(cell{when(to(WaitToStart), either(mayStart, ride))}, leave(down(ReasonStopped))),
		et: cell{when(to(ShutdownTailnet, cancelDial), ride), to(ShutdownTailnet, down(ReasonStopped), cancelDial)},
		tu: cell{when(to(ShutdownApplication, cancelAppStart), ride), to(ShutdownApplication, down(ReasonStopped), cancelAppStart)},
		// The agent may serve until it is gone.
		au: cell{when(stay(report), ride), to(ShutdownApplication, down(ReasonStopped), closeApp)},
		sa: cell{when(stay(), ride), stay(down(ReasonStopped))},
		st: cell{when(stay(), ride), stay(down(ReasonStopped))},
	},
	{
		on: TriggerStopSucceeded,
		in: cell{when(to(WaitForWorkspaceStarted, startWorkspace), canStart), to(Exit, down(ReasonStopped))},
		ws: seq(cell{
			when(to(WaitForWorkspaceStarted), starting),
			when(to(WaitForWorkspaceStarted, startWorkspace), canStart),
			when(stay(), ride, everUp),
		}, leave(down(ReasonStopped))),
		ww: seq(cell{when(stay(), starting)}, startAgain),
		wa: seq(cell{when(to(WaitForWorkspaceStarted), starting)}, startAgain),
		et: cell{when(to(ShutdownTailnet, cancelDial), ride), to(ShutdownTailnet, down(ReasonStopped), cancelDial)},
		tu: cell{when(to(ShutdownApplication, cancelAppStart), ride), to(ShutdownApplication, down(ReasonStopped), cancelAppStart)},
		au: cell{when(to(ShutdownTailnet, detach, closeConn), ride), to(ShutdownApplication, down(ReasonStopped), closeApp)},
		sa: cell{when(stay(), ride), stay(down(ReasonStopped))},
		st: cell{when(stay(), ride), stay(down(ReasonStopped))},
	},
	{
		// The watch may have told the end of our build before the answer came.
		on: TriggerStartAccepted,
		in: noop, ws: noop,
		ww: seq(given(startAgain, overtaken), noop),
		wa: noop, et: noop, tu: noop, au: noop, sa: noop, st: noop,
	},
	{
		on: TriggerStartRefused,
		in: noop, ws: noop,
		ww: seq(
			given(startAgain, overtaken),
			cell{when(stay(), either(conflict, startUnderWay))},
			leave(down(ReasonStartRefused)),
		),
		wa: noop, et: noop, tu: noop, au: noop, sa: noop, st: noop,
	},
	{
		on: TriggerAgentReady,
		in: noop, ws: noop, ww: noop,
		wa: dialReady,
		et: cell{when(stay(), sameAgent), to(ShutdownTailnet, cancelDial)},
		tu: cell{when(stay(), sameAgent), to(ShutdownApplication, cancelAppStart)},
		au: seq(cell{when(stay(), sameAgent)}, replaced),
		sa: noop, st: noop,
	},
	{
		// Another agent that starts means that ours is dead.
		on: TriggerAgentStarting,
		in: noop, ws: noop, ww: noop,
		wa: dialReady,
		et: cell{when(stay(), sameAgent), to(ShutdownTailnet, cancelDial)},
		tu: cell{when(stay(), sameAgent), to(ShutdownApplication, cancelAppStart)},
		au: seq(cell{when(stay(report), sameAgent)}, replaced),
		sa: noop, st: noop,
	},
	{
		on: TriggerAgentBadStart,
		in: noop, ws: noop, ww: noop,
		wa: connectOr(stay()),
		et: cell{when(stay(), sameAgent), to(ShutdownTailnet, cancelDial)},
		tu: cell{when(stay(), sameAgent), to(ShutdownApplication, cancelAppStart)},
		au: seq(cell{when(stay(report), sameAgent)}, replaced),
		sa: noop, st: noop,
	},
	{
		on: TriggerAgentGone,
		in: noop, ws: noop, ww: noop, wa: noop, et: noop, tu: noop,
		au: reported,
		sa: noop, st: noop,
	},
	{
		on: TriggerAgentCreated,
		in: noop, ws: noop, ww: noop, wa: noop, et: noop, tu: noop,
		au: reported,
		sa: noop, st: noop,
	},
	{
		on: TriggerTailnetUp,
		in: unexpected, ws: unexpected, ww: unexpected, wa: unexpected,
		et: cell{when(to(ApplicationUp, attach), appHeld), to(TailnetUp, startApp)},
		tu: unexpected, au: unexpected, sa: unexpected,
		// It came up although it was cancelled.
		st: cell{stay(closeConn)},
	},
	{
		on: TriggerTailnetDown,
		in: unexpected, ws: unexpected, ww: unexpected, wa: unexpected,
		et: seq(given(resume(leave), canRetry), leave(down(ReasonDial))),
		tu: cell{to(ShutdownApplication, cancelAppStart)},
		au: seq(given(resume(leave, detach), canRetry), cell{to(ShutdownApplication, down(ReasonLost), closeApp)}),
		sa: noop,
		st: seq(given(resume(leave), wantUp), cell{when(to(ShutdownApplication, closeApp), appHeld), to(Exit)}),
	},
	{
		on: TriggerAppUp,
		in: unexpected, ws: unexpected, ww: unexpected, wa: unexpected, et: unexpected,
		tu: cell{to(ApplicationUp)},
		au: unexpected,
		// It came up although its start was cancelled.
		sa: seq(
			cell{when(stay(closeApp), wantDown), when(to(ShutdownTailnet, detach, closeConn), connHeld)},
			resume(func(d *action) cell { return cell{stay(d, closeApp)} }, detach),
		),
		st: unexpected,
	},
	{
		on: TriggerAppDown,
		in: unexpected,
		ws: seq(cell{when(to(Exit, down(ReasonApp)), appHeld)}, unexpected),
		ww: seq(cell{when(to(Exit, down(ReasonApp)), appHeld)}, unexpected),
		wa: seq(cell{when(to(Exit, down(ReasonApp)), appHeld)}, unexpected),
		et: seq(cell{when(to(ShutdownTailnet, down(ReasonApp), cancelDial), appHeld)}, unexpected),
		tu: cell{to(ShutdownTailnet, down(ReasonApp), closeConn)},
		au: cell{to(ShutdownTailnet, down(ReasonApp), closeConn)},
		sa: seq(
			cell{when(to(ShutdownTailnet, closeConn), connHeld)},
			given(resume(func(d *action) cell { return cell{to(Exit, d)} }), wantUp),
			cell{to(Exit)},
		),
		st: seq(cell{when(stay(down(ReasonApp)), appHeld)}, unexpected),
	},
	{
		on: TriggerWatchUp,
		in: noop, ws: noop, ww: noop, wa: noop,
		et: reported, tu: reported, au: reported, sa: reported, st: reported,
	},
	{
		on: TriggerWatchRetrying,
		in: reported, ws: reported, ww: reported, wa: reported,
		et: reported, tu: reported, au: reported, sa: reported, st: reported,
	},
	{
		// A lost watch never takes down a tunnel that is up.
		on: TriggerWatchLost,
		in: cell{to(Exit, down(ReasonWatch))},
		ws: leave(down(ReasonWatch)),
		ww: leave(down(ReasonWatch)),
		wa: leave(down(ReasonWatch)),
		et: reported, tu: reported, au: reported, sa: reported, st: reported,
	},
	{
		on: TriggerRetryDue,
		in: noop, ws: noop, ww: noop,
		wa: dialReady,
		et: noop, tu: noop, au: noop, sa: noop, st: noop,
	},
	{
		on: TriggerDeadline,
		in: cell{to(Exit, down(ReasonTimeout))},
		ws: leave(down(ReasonTimeout)),
		ww: leave(down(ReasonTimeout)),
		wa: leave(down(ReasonTimeout)),
		// A dial that does not even answer its cancelling is given up with all else.
		et: cell{when(to(Exit, down(ReasonTimeout), abort), dialCanceled), stay(cancelDial, armDeadline)},
		tu: cell{to(ShutdownApplication, down(ReasonTimeout), cancelAppStart)},
		au: noop,
		sa: cell{to(Exit, down(ReasonTimeout), abort)},
		st: cell{to(Exit, down(ReasonTimeout), abort)},
	},
	{
		on: TriggerPathChanged,
		in: reported, ws: reported, ww: reported, wa: reported,
		et: noop,
		tu: reported, au: reported,
		sa: noop, st: noop,
	},
	{
		on: TriggerLog,
		in: reported, ws: reported, ww: reported, wa: reported,
		et: reported, tu: reported, au: reported, sa: reported, st: reported,
	},
}

// replaced: what we are connected to has been replaced by a newer one.
var replaced = cell{
	when(to(ShutdownTailnet, detach, closeConn), ride),
	to(ShutdownApplication, down(ReasonReplaced), closeApp),
}

// startAgain: the workspace is stopped and no start of ours is in flight.
var startAgain = seq(cell{
	when(to(WaitForWorkspaceStarted, startWorkspace), canStart),
	when(to(WaitToStart), ride, everUp),
}, leave(down(ReasonStopped)))

// dialReady dials a ready agent, and else waits on.
var dialReady = cell{when(to(EstablishTailnet, dial), agentReady), stay()}

// connectOr dials a ready agent, gives up on one whose scripts failed if that
// matters, and otherwise does what it is told.
func connectOr(otherwise alt) cell {
	return seq(
		cell{when(to(EstablishTailnet, dial), agentReady)},
		given(leave(down(ReasonScript)), scriptFailed),
		cell{otherwise},
	)
}

// resume goes on with a tunnel that is still wanted, from nothing but the
// snapshot. quit says how to leave from where we are.
func resume(quit func(*action) cell, do ...*action) cell {
	and := func(more ...*action) []*action { return append(do[:len(do):len(do)], more...) }
	return seq(
		given(quit(down(ReasonWatch)), watchGone),
		cell{when(to(WaitForAgent, and(armRetry)...), startedNow, agentReady)},
		given(quit(down(ReasonScript)), startedNow, scriptFailed),
		cell{
			when(to(WaitForAgent, do...), startedNow),
			when(to(WaitForWorkspaceStarted, do...), startUnderWay),
			when(to(WaitToStart, do...), stopUnderWay),
			when(to(WaitForWorkspaceStarted, do...), stoppedNow, starting),
			when(to(WaitForWorkspaceStarted, and(startWorkspace)...), stoppedNow, canStart),
			when(to(WaitToStart, do...), stoppedNow, ride, everUp),
		},
		quit(downBySnapshot),
	)
}
