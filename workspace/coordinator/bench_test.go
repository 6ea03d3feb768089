package coordinator

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
)

// One change, and the time until each of 1,000 watchers, over loopback
// WebSockets of the same process, has it. B/watch is the heap of both ends.
func BenchmarkFanOut(b *testing.B) {
	const watchers = 1000
	s := newSite(b)
	r := s.start()
	w := r.make("demo", processTemplate)
	require.Equal(b, events.JobSucceeded, r.build("demo", events.TransitionStart).Status)
	r.awaitRecord(w.ID, func(rec *record) bool { return rec.Agents[0].Lifecycle == events.LifecycleReady })

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	got := make(chan time.Time, watchers)
	token := s.token(api.ScopeViewer)
	for range watchers {
		ws := r.rawWatch(w.ID, "", token)
		require.NoError(b, ws.SetReadDeadline(time.Time{}))
		go func() {
			for {
				_, data, err := ws.ReadMessage()
				if err != nil {
					return
				}
				if m, err := events.DecodeWatchMessage(data); err == nil && m.AgentUpdate != nil {
					got <- time.Now()
				}
			}
		}()
	}
	for range watchers {
		<-got
	}
	runtime.GC()
	runtime.ReadMemStats(&after)

	var all []time.Duration
	lifecycles := []events.Lifecycle{events.LifecycleStartError, events.LifecycleReady}
	b.ResetTimer()
	for i := range b.N {
		began := time.Now()
		_, err := r.c.workspaces.change(b.Context(), w.ID, func(rec *record) error {
			rec.Agents[0].Lifecycle = lifecycles[i%2]
			return nil
		})
		require.NoError(b, err)
		for range watchers {
			all = append(all, (<-got).Sub(began))
		}
	}
	b.StopTimer()
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/watchers, "B/watch")
}
