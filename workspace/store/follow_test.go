package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFollowingALog(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	l := openLog(t, s, "l")
	appendLines(t, l, "0", "1", "2")
	first := readAll(t, l)[0]
	ctx, cancel := context.WithCancel(testContext(t))
	const readers, lines = 5, 500
	got := make(chan []string, readers)
	started := make(chan struct{}, readers)
	for i := range readers {
		after := int64(0)
		if i%2 == 1 {
			after = first.ID
		}
		go func() {
			var seen []string
			for r, err := range openLog(t, s, "l").Follow(ctx, after) {
				if err != nil {
					seen = append(seen, err.Error())
				} else {
					seen = append(seen, r.Output)
				}
				if len(seen) == 2 {
					started <- struct{}{}
				}
				if r.Output == fmt.Sprint(lines-1) {
					break
				}
			}
			got <- seen
		}()
	}
	for range readers {
		wait(t, started)
	}
	for i := 3; i < lines; i++ {
		appendLines(t, l, fmt.Sprint(i))
		if i%100 == 0 {
			appendLines(t, openLog(t, s, "l.not"), "x")
			s.appended.wakeAll() // a needless wake does no harm
		}
	}
	for range readers {
		seen := <-got
		for i, output := range seen {
			require.Equal(t, fmt.Sprint(lines-len(seen)+i), output)
		}
		require.GreaterOrEqual(t, len(seen), lines-1)
	}
	cancel()
	for range l.Follow(ctx, 0) {
		require.Fail(t, "a context that has ended yields nothing")
	}
}

func TestFollowEnds(t *testing.T) {
	s := openTest(t, Options{})
	l := openLog(t, s, "l")
	appendLines(t, l, "x")

	ctx, cancel := context.WithCancel(testContext(t))
	ended := make(chan []error, 1)
	follow := func(ctx context.Context, seen chan<- struct{}) {
		var errs []error
		for _, err := range l.Follow(ctx, 0) {
			if err != nil {
				errs = append(errs, err)
				continue
			}
			seen <- struct{}{}
		}
		ended <- errs
	}
	seen := make(chan struct{}, 1)
	go follow(ctx, seen)
	wait(t, seen)
	cancel()
	require.Empty(t, <-ended, "without an error when its context ends")

	go follow(testContext(t), seen)
	wait(t, seen)
	require.NoError(t, s.Close())
	errs := <-ended
	require.Len(t, errs, 1)
	require.ErrorIs(t, errs[0], ErrClosed, "with an error when the store is closed")
	s.appended.mu.Lock()
	defer s.appended.mu.Unlock()
	require.Empty(t, s.appended.waiters)
}

func TestFollowGoesOnAfterAPurge(t *testing.T) {
	s := openTest(t, Options{})
	l := openLog(t, s, "l")
	appendLines(t, l, "a", "b")
	next := make(chan string)
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r, err := range l.Follow(ctx, 0) {
			if err != nil {
				r.Output = err.Error()
			}
			next <- r.Output
		}
	}()
	require.Equal(t, "a", <-next)
	require.Equal(t, "b", <-next)
	require.NoError(t, l.Purge(testContext(t)))
	appendLines(t, l, "c")
	require.Equal(t, "c", <-next)
	cancel()
	wait(t, done)
}

func TestFollowDoesNotDependOnBeingTold(t *testing.T) {
	s := openTest(t, Options{})
	s.checkEvery = 5 * time.Millisecond
	config := s.logs.CachedInfo().Config
	config.RePublish = nil
	_, err := s.js.UpdateStream(testContext(t), config)
	require.NoError(t, err)
	l := openLog(t, s, "l")
	appendLines(t, l, "a")
	var seen []string
	for r, err := range l.Follow(testContext(t), 0) {
		require.NoError(t, err)
		if seen = append(seen, r.Output); len(seen) == 3 {
			break
		}
		appendLines(t, l, "b")
	}
	require.Equal(t, []string{"a", "b", "b"}, seen)
}
