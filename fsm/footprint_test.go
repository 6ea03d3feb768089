package fsm_test

import (
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/fsm"
)

// footprint is what each of n tunnelers that are up takes: goroutines, and
// bytes of heap and stack. The in-memory client's share is in it.
func footprint(t require.TestingT, n int) (goroutines, bytes float64) {
	read := func() (int, uint64) {
		runtime.GC()
		runtime.GC() // what a finalizer held is gone after the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc + m.StackInuse
	}
	goroutinesBefore, bytesBefore := read()
	f := newFleet(n)
	f.up.Wait()
	goroutinesUp, bytesUp := read()
	require.Equal(t, n, f.count(fsm.ApplicationUp))
	f.shutdown()
	return float64(goroutinesUp-goroutinesBefore) / float64(n), (float64(bytesUp) - float64(bytesBefore)) / float64(n)
}

// BenchmarkTunnelers reports what each of so many tunnelers takes; its time is
// that of bringing all of them up and down.
func BenchmarkTunnelers(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var goroutines, bytes float64
			for b.Loop() {
				goroutines, bytes = footprint(b, n)
			}
			b.ReportMetric(goroutines, "goroutines/tunneler")
			b.ReportMetric(bytes, "B/tunneler")
		})
	}
}

// TestAThousandTunnelersInOneProcess prints what each takes, and holds the
// bounds that docs/library.md promises.
func TestAThousandTunnelersInOneProcess(t *testing.T) {
	const n = 1000
	goroutines, bytes := footprint(t, n)
	t.Logf("%d tunnelers: %.1f goroutines and %.0f bytes each", n, goroutines, bytes)
	require.LessOrEqual(t, goroutines, 4.01, "the loop, the watch, the connection, the application")
	require.Less(t, bytes, 65_536.)
}
