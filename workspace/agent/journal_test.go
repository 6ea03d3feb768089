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
					size += weight(e)
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
	j.lifecycle(events.LifecycleReady, nil)
	kept := len(j.entries)
	var got []events.AgentLogEntry
	for m := j.next(); m != nil; m = j.next() {
		if logs, ok := m.(*events.AgentLogs); ok {
			got = append(got, logs.Entries...)
		}
	}
	require.Zero(t, j.bytes)
	require.Len(t, got, kept+1)
	total := 3 * maxJournal / len(line)
	require.Equal(t, fmt.Sprintf("%d lines of this log were lost: the coordinator was out of reach for too long", total-kept), got[0].Output)
	for i, e := range got {
		require.Equal(t, uint64(total-kept+i), e.Seq, "the loss has the number of the last line that was lost")
	}

	j.log(events.LogInfo, "test", "", "after")
	require.Len(t, j.next().(*events.AgentLogs).Entries, 1, "it is said once")
}

func TestEmptyLinesFillAJournalToo(t *testing.T) {
	j := newJournal()
	for range maxJournal {
		j.log(events.LogInfo, "test", "", "")
	}
	require.LessOrEqual(t, len(j.entries), maxJournal/128)
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
