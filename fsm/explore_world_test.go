package fsm

import (
	"strconv"

	"github.com/tunneler/tunneler/events"
)

// The environment of the exhaustive exploration (explore_test.go): a workspace
// with at most maxBuilds builds, an agent that is born, fails and is replaced,
// a watch that collapses updates, and every effect of the machine with every
// answer it can have. It is a comparable value, so that a configuration of
// machine and environment can be a map key.

const (
	maxBuilds = 3 // build numbers 1 to 3; 0 is a workspace that was never built
	maxAgents = 2 // agent processes in one build
)

// agentWorld is the agent of the current start build.
type agentWorld struct {
	id        uint8 // 0: none yet
	build     uint8
	lifecycle events.Lifecycle
	status    events.AgentStatus
}

func (a agentWorld) update() events.AgentUpdate {
	u := events.AgentUpdate{Build: int64(a.build), Lifecycle: a.lifecycle, Status: a.status}
	if a.id > 0 {
		u.ID = agentID(a.build, a.id)
	}
	return u
}

func agentID(build, id uint8) string { return agentIDs[build][id] }

var agentIDs = func() (ids [maxBuilds + 1][maxAgents + 1]string) {
	for b := range ids {
		for i := range ids[b] {
			ids[b][i] = strconv.Itoa(b) + "." + strconv.Itoa(i)
		}
	}
	return ids
}()

// buildWorld is the newest build.
type buildWorld struct {
	number     uint8
	transition events.Transition
	status     events.JobStatus
}

func (b buildWorld) update() events.BuildUpdate {
	return events.BuildUpdate{Number: int64(b.number), Transition: b.transition, Status: b.status}
}

// answer is the state of something that was asked for.
type answer uint8

const (
	none     answer = iota
	inFlight        // asked, not yet decided
	canceled        // asked, and asked not to
	up              // there
	over            // gone or going, and the machine not yet told
	accepted        // of a start: decided, and the machine not yet told
	conflicted
	refused
)

// world is the environment.
type world struct {
	build buildWorld
	agent agentWorld
	// what the watch has told; of the agent it has told all
	toldBuild buildWorld
	told      bool
	watchLost bool

	start      answer
	startBuild uint8 // of an answer that is accepted or conflicted
	dial       answer
	conn       answer
	app        answer
	retry      bool
	deadline   bool
	aborted    bool
	asked      bool // shutdown was asked for
}

// config is one node of the exploration.
type config struct {
	w world
	m compact
}

// compact is the machine's state and model as a small comparable value.
type compact struct {
	state                                                State
	down, starting, everUp, dialing, dialCanceled        bool
	connHeld, appStarting, appHeld, appClosing, hasBuild bool
	watch                                                events.WatchState
	build                                                buildWorld
	agent                                                agentWorld
	targetAgent, targetAgentBuild, targetBuild           uint8
	attempt                                              uint8
}

func (c compact) load(m *machine) {
	m.state = c.state
	m.model = model{
		down: c.down, starting: c.starting, everUp: c.everUp, dialing: c.dialing, dialCanceled: c.dialCanceled,
		connHeld: c.connHeld, appStarting: c.appStarting, appHeld: c.appHeld, appClosing: c.appClosing, hasBuild: c.hasBuild,
		watch: c.watch, attempt: int(c.attempt),
	}
	if c.hasBuild {
		m.model.build = c.build.update()
	}
	if c.agent.id > 0 {
		m.model.agent = c.agent.update()
	}
	if c.targetAgent > 0 {
		m.model.target = target{agent: agentID(c.targetAgentBuild, c.targetAgent), build: int64(c.targetBuild)}
	}
}

func save(m *machine) compact {
	c := compact{
		state: m.state, down: m.model.down, starting: m.model.starting, everUp: m.model.everUp,
		dialing: m.model.dialing, dialCanceled: m.model.dialCanceled, connHeld: m.model.connHeld,
		appStarting: m.model.appStarting, appHeld: m.model.appHeld, appClosing: m.model.appClosing,
		hasBuild: m.model.hasBuild, watch: m.model.watch, attempt: uint8(min(m.model.attempt, m.rules.maxAttempts)),
	}
	if c.hasBuild {
		c.build = buildWorld{uint8(m.model.build.Number), m.model.build.Transition, m.model.build.Status}
	}
	if a := m.model.agent; a.ID != "" {
		c.agent = agentWorld{a.ID[2] - '0', uint8(a.Build), a.Lifecycle, a.Status}
	}
	// A target is only of interest while it is dialled or connected.
	if t := m.model.target; t.agent != "" && (m.model.dialing || m.model.connHeld) {
		c.targetAgent, c.targetAgentBuild, c.targetBuild = t.agent[2]-'0', t.agent[0]-'0', uint8(t.build)
	}
	return c
}

// canonical forgets what can no longer make a difference: a machine that wants
// to go down looks at nothing but what it holds, and one that was up once does
// not count its attempts.
func (c config) canonical() config {
	if c.m.everUp {
		c.m.attempt = 0
	}
	if c.m.down {
		b := buildWorld{1, events.TransitionStart, events.JobSucceeded}
		c.w.build, c.w.toldBuild, c.w.told, c.w.agent = b, b, true, agentWorld{}
		c.w.start, c.w.startBuild, c.w.retry, c.w.asked = none, 0, false, true
		c.m.build, c.m.hasBuild, c.m.agent, c.m.starting = b, true, agentWorld{}, false
		c.m.targetAgent, c.m.targetAgentBuild, c.m.targetBuild = 0, 0, 0
		c.m.attempt, c.m.everUp = 0, false
	}
	return c
}

// startingWorlds are what a tunneler may find.
func startingWorlds() []world {
	ready := agentWorld{1, 1, events.LifecycleReady, events.AgentConnected}
	return []world{
		{build: buildWorld{1, events.TransitionStop, events.JobSucceeded}},
		{build: buildWorld{1, events.TransitionStart, events.JobRunning}},
		{build: buildWorld{1, events.TransitionStart, events.JobSucceeded}, agent: ready},
		{build: buildWorld{1, events.TransitionStop, events.JobRunning}},
	}
}

// happening is one thing that can happen next: a change of the world alone
// (event nil), or an event that the machine is told, with the change that goes
// with it.
type happening struct {
	name string
	w    world
	ev   events.Event
}

// happenings lists everything that can happen next in a lawful world.
func (w world) happenings(out []happening) []happening {
	add := func(name string, ev events.Event, change func(*world)) {
		n := w
		change(&n)
		out = append(out, happening{name, n, ev})
	}
	w.watchMoves(add)
	w.answers(add)
	if !w.asked {
		add("shutdown", events.Shutdown{}, func(n *world) { n.asked = true })
		add("overall time-out", events.Timeout{}, func(*world) {})
	}
	add("abort", events.Abort{}, func(*world) {})
	if w.retry {
		add("retry due", events.RetryDue{}, func(n *world) { n.retry = false })
	}
	if w.deadline {
		add("deadline", events.Deadline{}, func(n *world) { n.deadline = false })
	}
	return out
}

type addFunc func(name string, ev events.Event, change func(*world))

// moves gives every build that may follow b next. Pending, running and canceling
// are one status here, failed and canceled another: a test holds that the
// machine cannot tell them apart.
func (b buildWorld) moves() []buildWorld { return buildMoves[b] }

var buildMoves = func() map[buildWorld][]buildWorld {
	out := make(map[buildWorld][]buildWorld)
	for n := range uint8(maxBuilds + 1) {
		for _, t := range []events.Transition{events.TransitionStart, events.TransitionStop, events.TransitionDelete} {
			active := buildWorld{n, t, events.JobRunning}
			succeeded, failed := buildWorld{n, t, events.JobSucceeded}, buildWorld{n, t, events.JobFailed}
			out[active] = []buildWorld{succeeded, failed}
			if n == maxBuilds {
				continue
			}
			next := []buildWorld{
				{n + 1, events.TransitionStart, events.JobRunning},
				{n + 1, events.TransitionStop, events.JobRunning},
				{n + 1, events.TransitionDelete, events.JobRunning},
			}
			out[failed] = next
			if t != events.TransitionDelete {
				out[succeeded] = next
			}
		}
	}
	return out
}()

// reachable gives b and every build that may follow it sooner or later: what
// the watch, which collapses updates, may tell next.
var reachable = func() map[buildWorld][]buildWorld {
	out := make(map[buildWorld][]buildWorld)
	for b := range buildMoves {
		seen := map[buildWorld]bool{b: true}
		list := []buildWorld{b}
		for i := 0; i < len(list); i++ {
			for _, n := range list[i].moves() {
				if !seen[n] {
					seen[n] = true
					list = append(list, n)
				}
			}
		}
		out[b] = list
	}
	return out
}()

// watchMoves: the builds move unseen only while a start of ours is in flight,
// since only its fate depends on the order; otherwise they move when the watch
// tells of it. The agent moves when the watch tells of it.
func (w world) watchMoves(add addFunc) {
	if w.start == inFlight {
		for _, b := range w.build.moves() {
			add("unseen build", nil, func(n *world) { n.build = b })
		}
	}
	if w.watchLost {
		return
	}
	for _, b := range reachable[w.build] {
		add("watch tells build", b.update(), func(n *world) {
			if b.number != w.toldBuild.number || b.transition != events.TransitionStart {
				n.agent = agentWorld{}
			}
			n.told, n.build, n.toldBuild = true, b, b
		})
	}
	if w.told && w.toldBuild.transition == events.TransitionStart && w.toldBuild == w.build {
		w.agentMoves(add)
	} else if w.agent.id > 0 {
		a := agentWorld{w.agent.id, w.agent.build, w.agent.lifecycle, events.AgentDisconnected}
		add("watch tells agent", a.update(), func(n *world) { n.agent = a })
	}
	add("watch is lost", events.WatchUpdate{State: events.WatchLost}, func(n *world) { n.watchLost = true })
	add("watch retries", events.WatchUpdate{State: events.WatchRetrying}, func(*world) {})
}

// agentMoves: any agent process of the build, from the present one on, in any
// lifecycle; what an agent last said before it fell silent makes no difference.
func (w world) agentMoves(add addFunc) {
	tell := func(a agentWorld) { add("watch tells agent", a.update(), func(n *world) { n.agent = a }) }
	for id := max(w.agent.id, 1); id <= min(w.agent.id+1, maxAgents); id++ {
		tell(agentWorld{id, w.build.number, events.LifecycleReady, events.AgentDisconnected})
		for _, l := range []events.Lifecycle{events.LifecycleStarting, events.LifecycleStartError, events.LifecycleReady} {
			tell(agentWorld{id, w.build.number, l, events.AgentConnected})
		}
	}
}

// answers are what effects in flight may come to.
func (w world) answers(add addFunc) {
	switch w.start {
	case inFlight:
		w.decideStart(add)
	case accepted:
		add("start accepted", events.StartResult{Build: int64(w.startBuild)}, func(n *world) { n.start, n.startBuild = none, 0 })
	case conflicted:
		add("start in conflict", events.StartResult{Build: int64(w.startBuild), Conflict: true}, func(n *world) { n.start, n.startBuild = none, 0 })
	case refused:
		add("start refused", events.StartResult{Err: errRefused}, func(n *world) { n.start = none })
	default:
	}
	if w.dial == inFlight || w.dial == canceled {
		add("dial succeeds", events.TailnetUpdate{Up: true}, func(n *world) { n.dial, n.conn = none, up })
		add("dial fails", events.TailnetUpdate{Err: errDial}, func(n *world) { n.dial = none })
		add("dial fails for good", events.TailnetUpdate{Err: errDialForGood}, func(n *world) { n.dial = none })
	}
	switch w.conn {
	case up:
		add("connection dies", nil, func(n *world) { n.conn = over })
	case over:
		add("connection is down", events.TailnetUpdate{Lived: 1}, func(n *world) { n.conn = none })
		add("connection is down after long", events.TailnetUpdate{Lived: stable}, func(n *world) { n.conn = none })
		add("connection is down for good", events.TailnetUpdate{Lived: 1, Err: errDialForGood}, func(n *world) { n.conn = none })
	default:
	}
	switch w.app {
	case inFlight, canceled:
		add("application starts", events.AppUpdate{Up: true}, func(n *world) { n.app = up })
		add("application does not start", events.AppUpdate{Err: errApp}, func(n *world) { n.app = none })
	case up:
		add("application dies", nil, func(n *world) { n.app = over })
	case over:
		add("application is down", events.AppUpdate{}, func(n *world) { n.app = none })
	default:
	}
}

// decideStart: the coordinator takes up our request, at whatever time.
func (w world) decideStart(add addFunc) {
	add("coordinator refuses the start", nil, func(n *world) { n.start = refused })
	b := w.build
	switch {
	case !b.status.Final():
		add("coordinator sees another build under way", nil, func(n *world) { n.start, n.startBuild = conflicted, b.number })
	case len(b.moves()) > 0:
		add("coordinator accepts the start", nil, func(n *world) {
			n.build = buildWorld{b.number + 1, events.TransitionStart, events.JobRunning}
			n.start, n.startBuild = accepted, n.build.number
		})
	}
}
