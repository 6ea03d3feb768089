package fsm

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tunneler descends from a published one, which was one shot: OnStop Exit.
// What that did right it must go on doing. Each line of a life is an event and
// the state that it leads to, with the effects in between; timers and reports,
// which the ancestor did not have, are left out.

type line struct {
	event string
	then  State
	does  string
}

// lead takes a machine through a life, from the words of a configuration.
func lead(t *testing.T, rulesText string, life []line) *machine {
	r := readRules(t, rulesText)
	m := newMachine(&r)
	m.begin()
	for i, l := range life {
		res, err := m.step(readEvent(t, l.event))
		require.NoError(t, err)
		require.NotEqual(t, Unexpected, res.outcome, "line %d: %s in %s", i, l.event, res.from)
		var did []string
		for _, e := range res.effects {
			switch e.Kind {
			case EffectArmDeadline, EffectArmRetry, EffectCancelTimers, EffectReport, EffectFinish:
			default:
				did = append(did, e.Kind.String())
			}
		}
		require.Equal(t, l.then.String(), m.state.String(), "line %d: %s", i, l.event)
		require.Equal(t, l.does, strings.Join(did, " "), "line %d: %s", i, l.event)
	}
	return m
}

// then continues a life.
func then(lives ...[]line) (out []line) {
	for _, l := range lives {
		out = append(out, l...)
	}
	return out
}

// The way up, piece by piece.
var (
	starts  = []line{{"build=1:stop/succeeded", WaitForWorkspaceStarted, "startWorkspace"}, {"accepted=2", WaitForWorkspaceStarted, ""}}
	builds  = []line{{"build=2:start/pending", WaitForWorkspaceStarted, ""}, {"build=2:start/running", WaitForWorkspaceStarted, ""}}
	waits   = []line{{"build=2:start/succeeded", WaitForAgent, ""}}
	dials   = []line{{"agent=a@2:ready", EstablishTailnet, "dial"}}
	tailnet = []line{{"tailnet=up", TailnetUp, "startApp"}}
	works   = []line{{"app=up", ApplicationUp, ""}}
	comesUp = then(waits, dials, tailnet, works)
	// and down again
	appGoes     = []line{{"app=down", ShutdownTailnet, "closeConn"}}
	tailnetGoes = []line{{"tailnet=down,lived=1ns", Exit, ""}}
	goesDown    = then(appGoes, tailnetGoes)
)

func TestTheAncestorsLives(t *testing.T) {
	for name, c := range map[string]struct {
		rules string
		cause Reason
		life  []line
	}{
		"a stopped workspace is started, and the tunnel comes up and goes down in order": {
			"", ReasonNone, then(starts, builds, comesUp, []line{{"shutdown", ShutdownApplication, "closeApp"}}, goesDown)},
		"a start that is under way is followed": {
			"", ReasonNone, then(builds, comesUp, []line{{"shutdown", ShutdownApplication, "closeApp"}}, goesDown)},
		"a running workspace is connected to at once": {
			"", ReasonNone, then(comesUp, []line{{"shutdown", ShutdownApplication, "closeApp"}}, goesDown)},
		"a stop that is under way is waited for, and then the workspace is started": {
			"", ReasonNone, then([]line{{"build=1:stop/running", WaitToStart, ""}}, starts, builds, comesUp)},
		"without autostart a stopped workspace is the end": {
			"noAutostart", ReasonStopped, []line{{"build=1:stop/succeeded", Exit, ""}}},
		"without autostart a start by somebody else is followed": {
			"noAutostart", ReasonNone, then(builds, comesUp)},
		"an agent that is not ready is waited for": {
			"", ReasonNone, then(waits, []line{
				{"agent=a@2:created", WaitForAgent, ""}, {"agent=a@2:starting", WaitForAgent, ""}, {"agent=a@2:ready", EstablishTailnet, "dial"}})},
		"an agent whose script runs is connected to, if nobody wants to wait": {
			"noWait", ReasonNone, then(waits, []line{{"agent=a@2:starting", EstablishTailnet, "dial"}}, tailnet, works)},
		"a failed start is the end": {
			"", ReasonBuildFailed, then(starts, builds, []line{{"build=2:start/failed", Exit, ""}})},
		"a cancelled start is the end": {
			"", ReasonBuildFailed, then(starts, builds, []line{{"build=2:start/canceled", Exit, ""}})},
		"a failed build while the agent is waited for is the end": {
			"", ReasonBuildFailed, then(waits, []line{{"build=3:start/failed", Exit, ""}})},
		"a failed stop is the end of waiting for it": {
			"", ReasonBuildFailed, []line{{"build=1:stop/running", WaitToStart, ""}, {"build=1:stop/failed", Exit, ""}}},
		"a failed build under a tunnel that is up is none of its business": {
			"", ReasonNone, then(comesUp, []line{{"build=3:stop/failed", ApplicationUp, ""}})},
		"a dial that cannot succeed is the end": {
			"", ReasonDial, then(waits, dials, []line{{"tailnet=down,err=permanent", Exit, ""}})},
		"an application that cannot be started ends it, tailnet last": {
			"", ReasonApp, then(waits, dials, tailnet, []line{{"app=down,err=app", ShutdownTailnet, "closeConn"}}, tailnetGoes)},
		"a stop under a tunnel that is up takes it down, application first": {
			"", ReasonStopped, then(comesUp, []line{{"build=3:stop/pending", ShutdownApplication, "closeApp"}}, goesDown)},
		"a stop that is over takes it down all the same": {
			"", ReasonStopped, then(comesUp, []line{{"build=3:stop/succeeded", ShutdownApplication, "closeApp"}}, goesDown)},
		"a stop while the application starts waits for that": {
			"", ReasonStopped, then(waits, dials, tailnet, []line{
				{"build=3:stop/pending", ShutdownApplication, "cancelAppStart"}, {"app=up", ShutdownApplication, "closeApp"}}, goesDown)},
		"a stop while the tailnet is dialled waits for that": {
			"", ReasonStopped, then(waits, dials, []line{
				{"build=3:stop/pending", ShutdownTailnet, "cancelDial"}, {"tailnet=up", ShutdownTailnet, "closeConn"}}, tailnetGoes)},
		"a deletion before anything else is the end": {
			"", ReasonDeleted, []line{{"build=1:delete/succeeded", Exit, ""}}},
		"a deletion while waiting for the workspace is the end": {
			"", ReasonDeleted, then(builds, []line{{"build=3:delete/succeeded", Exit, ""}})},
		"a deletion while waiting for the agent is the end": {
			"", ReasonDeleted, then(waits, []line{{"build=3:delete/succeeded", Exit, ""}})},
		"a deletion under a tunnel that is up takes it down, application first": {
			"", ReasonDeleted, then(comesUp, []line{{"build=3:delete/succeeded", ShutdownApplication, "closeApp"}}, goesDown)},
		"a shutdown before anything else is the end": {
			"", ReasonNone, []line{{"shutdown", Exit, ""}}},
		"a shutdown while a stop is waited for is the end": {
			"", ReasonNone, []line{{"build=1:stop/running", WaitToStart, ""}, {"shutdown", Exit, ""}}},
		"a shutdown while the start is waited for is the end": {
			"", ReasonNone, then(builds, []line{{"shutdown", Exit, ""}})},
		"a shutdown while the agent is waited for is the end": {
			"", ReasonNone, then(waits, []line{{"shutdown", Exit, ""}})},
		"a shutdown while the application starts waits for that": {
			"", ReasonNone, then(waits, dials, tailnet, []line{
				{"shutdown", ShutdownApplication, "cancelAppStart"}, {"app=up", ShutdownApplication, "closeApp"}}, goesDown)},
		"a second shutdown changes nothing": {
			"", ReasonNone, then(comesUp, []line{{"shutdown", ShutdownApplication, "closeApp"}, {"shutdown", ShutdownApplication, ""}}, goesDown)},
		"what the watch tells on the way down changes nothing": {
			"", ReasonNone, then(comesUp, []line{
				{"shutdown", ShutdownApplication, "closeApp"}, {"build=3:start/running", ShutdownApplication, ""}, {"agent=b@3:ready", ShutdownApplication, ""}},
				appGoes, []line{{"build=3:start/succeeded", ShutdownTailnet, ""}, {"agent=b@3:starting", ShutdownTailnet, ""}}, tailnetGoes)},
		"a tailnet that ends before the application on the way down is not closed again": {
			"", ReasonNone, then(comesUp, []line{
				{"shutdown", ShutdownApplication, "closeApp"}, {"tailnet=down,lived=1ns", ShutdownApplication, ""}, {"app=down", Exit, ""}})},
		"an agent that is not heard does not end a tunnel that is up": {
			"", ReasonNone, then(comesUp, []line{{"agent=a@2:ready/disconnected", ApplicationUp, ""}, {"agent=a@2:shutting_down", ApplicationUp, ""}})},
		"a hard cancel is the end at once": {
			"", ReasonAborted, then(comesUp, []line{{"abort", Exit, "abort"}})},
		"a hard cancel on the way down is, too": {
			"", ReasonNone, then(comesUp, []line{{"shutdown", ShutdownApplication, "closeApp"}, {"abort", Exit, "abort"}})},
	} {
		t.Run(name, func(t *testing.T) {
			m := lead(t, c.rules, c.life)
			require.Equal(t, c.cause.String(), m.model.cause.String())
		})
	}
}
