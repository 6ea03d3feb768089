package fsm

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// exactly holds that nothing happens until the moment is there, and that then
// it does.
func (s *stage) exactly(after time.Duration, from, to State) {
	s.t.Helper()
	time.Sleep(after - 1)
	synctest.Wait()
	s.in(from)
	time.Sleep(time.Nanosecond)
	synctest.Wait()
	s.in(to)
}

// TestEveryStateHasItsDeadline: the default, to the nanosecond, and what it
// leads to.
func TestEveryStateHasItsDeadline(t *testing.T) {
	inEveryState(t, Config{}, func(s *stage, in State) {
		d := DefaultDeadlines()[in]
		switch in {
		case ApplicationUp:
			require.Zero(s.t, d, "a tunnel that works may last")
			time.Sleep(1000 * time.Hour)
			synctest.Wait()
			s.in(ApplicationUp)
			s.tun.Abort()
		case EstablishTailnet:
			// The dial is cancelled, and answers: another is due after the backoff.
			s.exactly(d, EstablishTailnet, WaitForAgent)
			s.tun.Abort()
		case TailnetUp:
			s.exactly(d, TailnetUp, Exit)
			require.ErrorIs(s.t, <-s.result, ErrTimeout)
		case ShutdownTailnet:
			s.exactly(d, ShutdownTailnet, Exit)
			s.dials[0].answer(nil, errDial)
			require.ErrorIs(s.t, <-s.result, ErrDeleted)
		case ShutdownApplication:
			s.exactly(d, ShutdownApplication, Exit)
			require.ErrorIs(s.t, <-s.result, ErrDeleted)
		default:
			s.exactly(d, in, Exit)
			require.ErrorIs(s.t, <-s.result, ErrTimeout)
		}
	})
}

func TestADeadlineCanBeSetAndTakenAway(t *testing.T) {
	t.Run("set", func(t *testing.T) {
		bubble(t, Config{Deadlines: map[State]time.Duration{WaitForAgent: 7 * time.Second}}, func(s *stage) {
			reach[WaitForAgent](s)
			s.exactly(7*time.Second, WaitForAgent, Exit)
		})
	})
	t.Run("taken away", func(t *testing.T) {
		bubble(t, Config{Deadlines: map[State]time.Duration{WaitForAgent: -1}}, func(s *stage) {
			reach[WaitForAgent](s)
			time.Sleep(1000 * time.Hour)
			synctest.Wait()
			s.in(WaitForAgent)
			s.tun.Abort()
		})
	})
	t.Run("the others keep theirs", func(t *testing.T) {
		bubble(t, Config{Deadlines: map[State]time.Duration{WaitForAgent: -1}}, func(s *stage) {
			s.exactly(time.Minute, Init, Exit)
		})
	})
	t.Run("a word that changes nothing does not prolong it", func(t *testing.T) {
		bubble(t, Config{}, func(s *stage) {
			reach[WaitForAgent](s)
			time.Sleep(14 * time.Minute)
			s.say("agent=a@1:starting", "agentLog")
			s.exactly(time.Minute, WaitForAgent, Exit)
		})
	})
}

// TestADeafDialIsGivenUp: first it is cancelled, then everything is.
func TestADeafDialIsGivenUp(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		s.deaf = true
		reach[EstablishTailnet](s)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.Error(s.t, s.dials[0].ctx.Err(), "it is cancelled")
		s.exactly(30*time.Second, EstablishTailnet, Exit)
		s.connect() // now it comes up, and nobody waits for it
		require.ErrorIs(s.t, <-s.result, ErrTimeout)
		require.Equal(s.t, []string{"close"}, s.conn.history())
	})
}

// TestADialThatComesUpAfterItsDeadline is a connection all the same.
func TestADialThatComesUpAfterItsDeadline(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		s.deaf = true
		reach[EstablishTailnet](s)
		time.Sleep(31 * time.Second)
		s.connect()
		s.in(TailnetUp)
		s.serve()
		s.in(ApplicationUp)
		s.tun.Abort()
	})
}

func TestTheWayUpHasATimeout(t *testing.T) {
	for _, in := range []State{Init, WaitToStart, WaitForWorkspaceStarted, WaitForAgent, EstablishTailnet, TailnetUp} {
		t.Run("in "+in.String(), func(t *testing.T) {
			bubble(t, Config{Timeout: 10 * time.Second}, func(s *stage) {
				reach[in](s)
				s.exactly(10*time.Second, in, Exit)
				require.ErrorIs(s.t, <-s.result, ErrTimeout)
			})
		})
	}
	t.Run("and is over once it is up", func(t *testing.T) {
		bubble(t, Config{Timeout: 10 * time.Second}, func(s *stage) {
			reach[ApplicationUp](s)
			s.exactly(10*time.Second, ApplicationUp, ApplicationUp)
			s.conn.die(nil)
			synctest.Wait()
			time.Sleep(time.Minute)
			synctest.Wait()
			s.in(EstablishTailnet)
			s.tun.Abort()
		})
	})
}

// TestBackoffIsExact: the moments of the dials, with a random source that
// always says one half.
func TestBackoffIsExact(t *testing.T) {
	ms := time.Millisecond
	for name, c := range map[string]struct {
		backoff Backoff
		random  float64
		want    []time.Duration
	}{
		"default": {Backoff{}, 0, []time.Duration{250 * ms, 500 * ms, 1000 * ms, 2000 * ms, 4000 * ms, 8000 * ms, 15000 * ms, 15000 * ms}},
		"default, with half of its jitter": {Backoff{}, 0.5, []time.Duration{
			212500 * time.Microsecond, 425 * ms, 850 * ms, 1700 * ms, 3400 * ms, 6800 * ms, 12750 * ms, 12750 * ms}},
		"as configured": {Backoff{Initial: time.Second, Max: 3 * time.Second, Jitter: 1}, 0.25, []time.Duration{
			750 * ms, 1500 * ms, 2250 * ms, 2250 * ms}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{Backoff: c.backoff, Rand: func() float64 { return c.random }}, func(s *stage) {
				reach[EstablishTailnet](s)
				for i, d := range c.want {
					require.Equal(s.t, i+1, s.dials[i].req.Attempt)
					time.Sleep(3 * time.Second) // a dial's own time does not count
					s.dials[i].answer(nil, errDial)
					s.exactly(d, WaitForAgent, EstablishTailnet)
				}
				s.tun.Abort()
			})
		})
	}
}

func TestAStableConnectionStartsTheBackoffAnew(t *testing.T) {
	still := Config{Rand: func() float64 { return 0 }}
	for name, c := range map[string]struct {
		lived, delay time.Duration
		attempt      int
	}{
		"one that dies at once goes on backing off": {0, 500 * time.Millisecond, 3},
		"one that is not yet stable, too":           {10*time.Second - 1, 500 * time.Millisecond, 3},
		"a stable one is dialled again at once":     {10 * time.Second, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, still, func(s *stage) {
				reach[EstablishTailnet](s)
				s.dials[0].answer(nil, errDial)
				time.Sleep(250 * time.Millisecond)
				synctest.Wait()
				s.connect()
				s.serve()
				time.Sleep(c.lived)
				s.conn.die(errDial)
				synctest.Wait()
				if c.delay > 0 {
					s.exactly(c.delay, WaitForAgent, EstablishTailnet)
				}
				s.in(EstablishTailnet)
				require.Equal(s.t, c.attempt, s.dials[2].req.Attempt)
				s.tun.Abort()
			})
		})
	}
}

// TestNewsOfTheAgentCutTheBackoffShort, and a timer that was armed before is
// not heard after.
func TestNewsOfTheAgentCutTheBackoffShort(t *testing.T) {
	bubble(t, Config{}, func(s *stage) {
		reach[EstablishTailnet](s)
		s.dials[0].answer(nil, errDial)
		s.in(WaitForAgent)
		s.say("agent=a@1:ready/disconnected", "agent=a@1:ready")
		s.in(EstablishTailnet)
		require.Zero(s.t, s.since())
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Len(s.t, s.dials, 2)
		require.Equal(s.t, "agentReady", s.seen[len(s.seen)-1].Trigger.String(), "no timer was heard")
		s.tun.Abort()
	})
}

func TestBackoffDelay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Backoff{
			Initial: time.Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "initial")),
			Max:     time.Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "max")),
			Jitter:  rapid.Float64Range(0, 1).Draw(t, "jitter"),
		}
		n := rapid.IntRange(1, 10_000).Draw(t, "attempt")
		zero, one := func() float64 { return 0 }, func() float64 { return math.Nextafter(1, 0) }
		longest, shortest := b.delay(n, zero), b.delay(n, one)
		require.Positive(t, longest)
		require.LessOrEqual(t, longest, b.Max)
		require.GreaterOrEqual(t, b.delay(n+1, zero), longest, "it never becomes shorter")
		require.GreaterOrEqual(t, shortest, time.Duration(0))
		require.LessOrEqual(t, shortest, longest)
		require.Zero(t, b.delay(0, one), "after a stable connection there is none")
		// as the definition says, where that does not overflow
		if n < 30 && b.Initial < 1<<30 {
			require.Equal(t, min(b.Initial<<(n-1), b.Max), longest)
		}
	})
}
