package fsm

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
)

// fullCycle is a tunnel's life: a stopped workspace is started, the tunnel
// comes up, is lost and dialled again, rides out a restart of the workspace,
// and goes down in order; with the logs, repetitions and paths that come along.
const fullCycle = `watch=up build=1:stop/succeeded build=1:stop/succeeded accepted=2 build=2:start/pending buildLog
	build=2:start/running buildLog buildLog build=2:start/succeeded agent=a@2:created/connecting agent=a@2:starting
	agentLog agent=a@2:ready path tailnet=up path app=up path agent=a@2:ready watch=retrying watch=up
	tailnet=down,err=dial,lived=1ns retryDue tailnet=down,err=dial retryDue tailnet=up path
	build=3:stop/running agent=a@2:shutting_down build=3:stop/succeeded tailnet=down,lived=1µs
	build=4:start/running build=4:start/succeeded agent=b@4:ready tailnet=up path shutdown app=down tailnet=down,lived=1µs`

// liver lives the life above over and over, step by step.
type liver struct {
	m    *machine
	life []events.Event
	at   int
}

func newLiver(t require.TestingT) *liver {
	l := &liver{m: newMachine(&rules{onStop: OnStopWait, stableAfter: stable})}
	for word := range strings.FieldsSeq(fullCycle) {
		l.life = append(l.life, readEvent(t, word))
	}
	for range l.life { // once, to see that it is a whole life
		require.True(t, l.step(fire))
	}
	require.Equal(t, Exit, l.m.state)
	return l
}

func (l *liver) step(move engine) bool {
	if l.at == 0 {
		l.m.state, l.m.model = Init, model{}
		l.m.begin()
	}
	res, err := l.m.stepWith(move, l.life[l.at])
	if l.at++; l.at == len(l.life) {
		l.at = 0
	}
	return err == nil && res.outcome != Unexpected
}

func benchmark(b *testing.B, move engine) {
	l := newLiver(b)
	b.ReportAllocs()
	for b.Loop() {
		if !l.step(move) {
			b.FailNow()
		}
	}
}

// BenchmarkStep is one step as the product takes it, with the compiled
// stateless machine. The aim is less than 1 microsecond and 5 allocations.
func BenchmarkStep(b *testing.B) { benchmark(b, fire) }

// BenchmarkWalk is the same by following the table directly.
func BenchmarkWalk(b *testing.B) { benchmark(b, walk) }

// TestAStepAllocatesLittle holds the aim, as far as it does not depend on the
// host. It counts whole lives, since an average per step would round down.
func TestAStepAllocatesLittle(t *testing.T) {
	l := newLiver(t)
	perLife := testing.AllocsPerRun(100, func() {
		for range l.life {
			l.step(fire)
		}
	})
	require.Less(t, perLife, float64(5*len(l.life)))
	t.Logf("%.1f allocations in a life of %d steps", perLife, len(l.life))
}
