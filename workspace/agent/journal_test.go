package agent

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tunneler/tunneler/events"
)

// TestStatesOfLifeComeAfterTheLinesBeforeThem: whatever is written, in
// whatever order and however fast it is taken, arrives once, lines in order of
// their numbers, and each state of life right where it was entered.
func TestStatesOfLifeComeAfterTheLinesBeforeThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := newJournal()
		var want, got []string
		take := func() bool {
			switch m := j.next().(type) {
			case *events.AgentLogs:
				size := 0
				for _, e := range m.Entries {
					got = append(got, "line "+e.Output)
					size += len(e.Output)
				}
				require.True(t, size <= maxBatch || len(m.Entries) == 1)
			case *events.AgentLifecycle:
				got = append(got, "life "+m.Lifecycle.String())
			default:
				return false
			}
			return true
		}
		for i, step := range rapid.SliceOfN(rapid.IntRange(0, 3), 0, 60).Draw(t, "steps") {
			switch step {
			case 0, 1:
				text := fmt.Sprint(i, strings.Repeat(".", step*maxBatch*2/5))
				j.log(events.LogInfo, "test", "", text)
				want = append(want, "line "+text)
			case 2:
				l := events.Lifecycle(i%int(events.LifecycleOff) + 1)
				j.lifecycle(l, nil)
				want = append(want, "life "+l.String())
			case 3:
				take()
			}
		}
		for take() {
		}
		require.Equal(t, want, got)
	})
}

func TestAJournalThatNobodyTakesIsBoundedAndSaysWhatItLost(t *testing.T) {
	j := newJournal()
	line := strings.Repeat("x", 1000)
	for range 3 * maxJournal / len(line) {
		j.log(events.LogInfo, "test", "", line)
	}
	require.LessOrEqual(t, j.bytes, maxJournal)
	var last uint64
	for m := j.next(); m != nil; m = j.next() {
		for _, e := range m.(*events.AgentLogs).Entries {
			require.Greater(t, e.Seq, last)
			last = e.Seq
		}
	}
	require.Zero(t, j.bytes)
	j.log(events.LogInfo, "test", "", "after")
	entries := j.next().(*events.AgentLogs).Entries
	require.Len(t, entries, 2)
	require.Contains(t, entries[1].Output, "lines of this log were lost")
}

func TestFlushWaitsUntilTheLastWordIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		ctx, cancel := context.WithCancel(t.Context())
		taken := make(chan events.ChannelMessage)
		go j.send(ctx, func(ctx context.Context, m events.ChannelMessage) error {
			select {
			case taken <- m:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		j.log(events.LogInfo, "test", "", "one")
		j.lifecycle(events.LifecycleOff, nil)
		flushed := make(chan struct{})
		go func() {
			defer close(flushed)
			j.flush(ctx)
		}()
		for _, want := range []string{"agent.logs", "agent.lifecycle"} {
			synctest.Wait()
			select {
			case <-flushed:
				require.Fail(t, "flushed before it was taken")
			default:
			}
			require.Equal(t, want, (<-taken).Type())
		}
		<-flushed
		cancel()
	})
}
