package fsm

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
)

// The notation in which the table's tests are written: a model, the rules, an
// event and a list of effects are words with blanks between them, and what is
// not named has its zero value. "build=2:stop/running agent=a@2:ready conn" is
// a model, "agent=a@2:ready" an event, "dial=a@2#1" an effect.

var (
	errOwner    = errors.New("owner left")
	errWatching = errors.New("no such workspace")
)

// errorNames are the errors that events bring in these tests.
var errorNames = map[string]error{
	"refused": errRefused, "dial": errDial, "permanent": errDialForGood,
	"app": errApp, "owner": errOwner, "watch": errWatching,
}

func showErr(err error) string {
	for name, known := range errorNames {
		if errors.Is(err, known) {
			return name
		}
	}
	var b *BuildError
	if errors.As(err, &b) {
		return fmt.Sprintf("BuildError(%d)", b.Number)
	}
	return err.Error()
}

// handed is what an event hands over; two are equal when they are the same one.
type handed struct{ closed int }

func (h *handed) Close() error { h.closed++; return nil }

var theHandle io.Closer = new(handed)

func showBuild(b events.BuildUpdate) string {
	return fmt.Sprintf("build=%d:%s/%s", b.Number, b.Transition, b.Status)
}

func readBuild(v string) (b events.BuildUpdate, err error) {
	n, rest, _ := strings.Cut(v, ":")
	tr, st, _ := strings.Cut(rest, "/")
	if b.Number, err = strconv.ParseInt(n, 10, 64); err != nil {
		return b, err
	}
	return b, errors.Join(b.Transition.UnmarshalText([]byte(tr)), b.Status.UnmarshalText([]byte(st)))
}

func showAgent(a events.AgentUpdate) string {
	s := fmt.Sprintf("agent=%s@%d:%s", a.ID, a.Build, a.Lifecycle)
	if a.Status != events.AgentConnected {
		s += "/" + a.Status.String()
	}
	return s
}

func readAgent(v string) (a events.AgentUpdate, err error) {
	who, how, _ := strings.Cut(v, ":")
	id, build, _ := strings.Cut(who, "@")
	life, status, quiet := strings.Cut(how, "/")
	if !quiet {
		status = events.AgentConnected.String()
	}
	a.ID = id
	if a.Build, err = strconv.ParseInt(build, 10, 64); err != nil {
		return a, err
	}
	return a, errors.Join(a.Lifecycle.UnmarshalText([]byte(life)), a.Status.UnmarshalText([]byte(status)))
}

// flags are the truth values of a model by name.
func (m *model) flags() []struct {
	name string
	on   *bool
} {
	return []struct {
		name string
		on   *bool
	}{
		{"dialing", &m.dialing}, {"dialCanceled", &m.dialCanceled}, {"conn", &m.connHeld},
		{"appStarting", &m.appStarting}, {"app", &m.appHeld}, {"appClosing", &m.appClosing},
		{"starting", &m.starting}, {"everUp", &m.everUp},
	}
}

func showModel(m model) []string {
	var out []string
	if m.down {
		s := fmt.Sprintf("down=%s@%s", m.cause, m.causeState)
		if m.causeErr != nil {
			s += ":" + showErr(m.causeErr)
		}
		out = append(out, s)
	}
	if m.hasBuild {
		out = append(out, showBuild(m.build))
	}
	if m.agent != (events.AgentUpdate{}) {
		out = append(out, showAgent(m.agent))
	}
	if m.watch != 0 {
		out = append(out, "watch="+m.watch.String())
	}
	if m.watchErr != nil {
		out = append(out, "watchErr="+showErr(m.watchErr))
	}
	if m.target != (target{}) {
		out = append(out, fmt.Sprintf("target=%s@%d", m.target.agent, m.target.build))
	}
	for _, f := range m.flags() {
		if *f.on {
			out = append(out, f.name)
		}
	}
	if m.attempt != 0 {
		out = append(out, fmt.Sprintf("attempt=%d", m.attempt))
	}
	if m.lastDialErr != nil {
		out = append(out, "dialErr="+showErr(m.lastDialErr))
	}
	return out
}

func readModel(t require.TestingT, text string) (m model) {
	for _, word := range strings.Fields(text) {
		key, v, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "down":
			m.down = true
			what, where, _ := strings.Cut(v, "@")
			m.cause = readEnum(t, what, ReasonScript)
			m.causeState = readEnum(t, where, Exit)
		case "build":
			m.hasBuild = true
			m.build, err = readBuild(v)
		case "agent":
			m.agent, err = readAgent(v)
		case "watch":
			err = m.watch.UnmarshalText([]byte(v))
		case "watchErr":
			m.watchErr = errorNames[v]
		case "target":
			id, build, _ := strings.Cut(v, "@")
			m.target.agent = id
			m.target.build, err = strconv.ParseInt(build, 10, 64)
		case "attempt":
			m.attempt, err = strconv.Atoi(v)
		case "dialErr":
			m.lastDialErr = errorNames[v]
		default:
			for _, f := range m.flags() {
				*f.on = *f.on || f.name == key
			}
		}
		require.NoError(t, err, text)
	}
	// Nothing may be lost by a word that is spelt wrongly.
	require.Equal(t, strings.Join(strings.Fields(text), " "), strings.Join(showModel(m), " "), "a model is written in this order, and each word known")
	return m
}

func readEnum[E interface {
	~uint8
	fmt.Stringer
}](t require.TestingT, text string, last E) E {
	for v := E(0); v <= last; v++ {
		if v.String() == text {
			return v
		}
	}
	require.Fail(t, "unknown word", text)
	return 0
}

// showChange gives what is new in a model, and the names of what has gone.
func showChange(before, after model) string {
	old, now := showModel(before), showModel(after)
	key := func(w string) string { k, _, _ := strings.Cut(w, "="); return k }
	var out []string
	for _, w := range now {
		if !slices.Contains(old, w) {
			out = append(out, w)
		}
	}
	for _, w := range old {
		if !slices.ContainsFunc(now, func(n string) bool { return key(n) == key(w) }) {
			out = append(out, "-"+key(w))
		}
	}
	return strings.Join(out, " ")
}

func showRules(r rules) string {
	var out []string
	for name, on := range map[string]bool{"noAutostart": r.noAutostart, "noWait": r.noWaitForScripts, "strict": r.strictScripts} {
		if on {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	if r.onStop != OnStopExit {
		out = append(out, "onStop="+r.onStop.String())
	}
	if r.maxAttempts != 0 {
		out = append(out, fmt.Sprintf("max=%d", r.maxAttempts))
	}
	return strings.Join(out, " ")
}

func readRules(t require.TestingT, text string) rules {
	r := rules{stableAfter: stable}
	for _, word := range strings.Fields(text) {
		key, v, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "noAutostart":
			r.noAutostart = true
		case "noWait":
			r.noWaitForScripts = true
		case "strict":
			r.strictScripts = true
		case "onStop":
			r.onStop, err = ParseOnStop(v)
		case "max":
			r.maxAttempts, err = strconv.Atoi(v)
		default:
			require.Fail(t, "unknown rule", word)
		}
		require.NoError(t, err, text)
	}
	return r
}

func showEvent(ev events.Event) string {
	about := func(s string, err error, more ...string) string {
		for _, m := range more {
			s += "," + m
		}
		if err != nil {
			s += ",err=" + showErr(err)
		}
		return s
	}
	switch ev := ev.(type) {
	case events.BuildUpdate:
		return showBuild(ev)
	case events.AgentUpdate:
		return showAgent(ev)
	case events.Abort:
		return about("abort", ev.Err)
	case events.StartResult:
		if ev.Conflict {
			return about(fmt.Sprintf("conflict=%d", ev.Build), ev.Err)
		}
		if ev.Err != nil {
			return about("refused", ev.Err)
		}
		return fmt.Sprintf("accepted=%d", ev.Build)
	case events.TailnetUpdate:
		if ev.Up {
			return "tailnet=up"
		}
		if ev.Lived > 0 {
			return about("tailnet=down", ev.Err, "lived="+ev.Lived.String())
		}
		return about("tailnet=down", ev.Err)
	case events.AppUpdate:
		if ev.Up {
			return "app=up"
		}
		return about("app=down", ev.Err)
	case events.WatchUpdate:
		return about("watch="+ev.State.String(), ev.Err)
	}
	for name, plain := range plainEvents {
		if ev == plain {
			return name
		}
	}
	return fmt.Sprintf("%T", ev)
}

// plainEvents need no more than their name.
var plainEvents = map[string]events.Event{
	"shutdown": events.Shutdown{}, "timeout": events.Timeout{}, "deadline": events.Deadline{}, "retryDue": events.RetryDue{},
	"path": events.PathUpdate{}, "buildLog": events.BuildLog{}, "agentLog": events.AgentLog{},
}

func readEvent(t require.TestingT, text string) events.Event {
	word, attrs, _ := strings.Cut(text, ",")
	var cause error
	var lived time.Duration
	for a := range strings.SplitSeq(attrs, ",") {
		switch k, v, _ := strings.Cut(a, "="); k {
		case "err":
			cause = errorNames[v]
			require.Error(t, cause, text)
		case "lived":
			var err error
			lived, err = time.ParseDuration(v)
			require.NoError(t, err, text)
		}
	}
	if ev, ok := plainEvents[word]; ok {
		return ev
	}
	key, v, _ := strings.Cut(word, "=")
	n, _ := strconv.ParseInt(v, 10, 64)
	switch key {
	case "abort":
		return events.Abort{Err: cause}
	case "build":
		b, err := readBuild(v)
		require.NoError(t, err, text)
		return b
	case "agent":
		a, err := readAgent(v)
		require.NoError(t, err, text)
		return a
	case "accepted":
		return events.StartResult{Build: n}
	case "conflict":
		return events.StartResult{Build: n, Conflict: true, Err: cause}
	case "refused":
		return events.StartResult{Err: cause}
	case "tailnet":
		if v == "up" {
			return events.TailnetUpdate{Up: true, Conn: theHandle}
		}
		return events.TailnetUpdate{Err: cause, Lived: lived}
	case "app":
		if v == "up" {
			return events.AppUpdate{Up: true, App: theHandle}
		}
		return events.AppUpdate{Err: cause}
	case "watch":
		w := events.WatchUpdate{Err: cause}
		require.NoError(t, w.State.UnmarshalText([]byte(v)))
		return w
	}
	require.Fail(t, "unknown event", text)
	return nil
}

func showEffects(effects []Effect) string {
	var out []string
	for _, e := range effects {
		s := e.Kind.String()
		switch e.Kind {
		case EffectDial:
			s += fmt.Sprintf("=%s@%d#%d", e.Agent, e.Build, e.Attempt)
		case EffectArmRetry:
			s += fmt.Sprintf("#%d", e.Attempt)
		case EffectArmDeadline:
			s += "=" + e.State.String()
		case EffectCloseHanded:
			if e.Handle != theHandle {
				s += "=another"
			}
		default:
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}
