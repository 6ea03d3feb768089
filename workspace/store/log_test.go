package store

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func openLog(t testing.TB, s *Store, name string) *Log {
	t.Helper()
	l, err := s.Log(name)
	require.NoError(t, err)
	return l
}

func appendLines(t testing.TB, l *Log, outputs ...string) int64 {
	t.Helper()
	records := make([]LogRecord, len(outputs))
	for i, output := range outputs {
		records[i].Output = output
	}
	id, err := l.Append(testContext(t), records...)
	require.NoError(t, err)
	return id
}

func outputs(records []LogRecord) []string {
	var out []string
	for _, r := range records {
		out = append(out, r.Output)
	}
	return out
}

func readAll(t testing.TB, l *Log) []LogRecord {
	t.Helper()
	var all []LogRecord
	for after := int64(0); ; after = all[len(all)-1].ID {
		records, err := l.Read(testContext(t), after, 0)
		require.NoError(t, err)
		if len(records) == 0 {
			return all
		}
		all = append(all, records...)
	}
}

func TestALogGivesBackWhatWasAppended(t *testing.T) {
	l := openLog(t, openTest(t, Options{}), "a/b.c-1")
	start := time.Now().Add(-time.Second)
	at := time.Date(2024, 2, 29, 12, 0, 0, 123456789, time.FixedZone("x", 3600))
	given := []LogRecord{
		{ID: 99, Origin: 7, CreatedAt: at, Level: "info", Source: "startup", Stage: "plan", Output: "a <b> & \"c\"\t\u2028"},
		{Output: "two\nlines"},
		{},
	}
	id, err := l.Append(testContext(t), given...)
	require.NoError(t, err)
	got := readAll(t, l)
	require.Len(t, got, 3)
	require.Equal(t, id, got[2].ID)
	require.Less(t, got[0].ID, got[1].ID)
	require.Less(t, got[1].ID, got[2].ID)
	require.Equal(t, at.UTC(), got[0].CreatedAt)
	require.WithinRange(t, got[1].CreatedAt, start, time.Now().Add(time.Second))
	for i := range given {
		given[i].ID, given[i].CreatedAt = got[i].ID, got[i].CreatedAt
	}
	require.Equal(t, given, got)

	last, ok, err := l.Last(testContext(t))
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, got[2], last)
}

func TestAnEmptyLog(t *testing.T) {
	l := openLog(t, openTest(t, Options{}), "l")
	_, ok, err := l.Last(testContext(t))
	require.NoError(t, err)
	require.False(t, ok)
	require.Empty(t, readAll(t, l))
	id, err := l.Append(testContext(t))
	require.NoError(t, err)
	require.Zero(t, id)
	require.NoError(t, l.Purge(testContext(t)))
}

func TestReadingFromAnywhereToAnyLimit(t *testing.T) {
	l := openLog(t, openTest(t, Options{}), "l")
	other := openLog(t, l.store, "l.other")
	for i := range 30 {
		appendLines(t, l, fmt.Sprint(3*i), fmt.Sprint(3*i+1), fmt.Sprint(3*i+2))
		appendLines(t, other, "not this")
	}
	all := readAll(t, l)
	require.Len(t, all, 90)
	rapid.Check(t, func(rt *rapid.T) {
		from := rapid.IntRange(-1, 89).Draw(rt, "from")
		limit := rapid.IntRange(1, 100).Draw(rt, "limit")
		after := int64(-5)
		if from >= 0 {
			after = all[from].ID
		}
		got, err := l.Read(context.Background(), after, limit)
		require.NoError(rt, err)
		want := all[from+1:]
		want = want[:min(limit, len(want))]
		require.Len(rt, got, len(want))
		for i := range want {
			require.Equal(rt, want[i], got[i])
		}
	})
	got, err := l.Read(testContext(t), all[89].ID+1_000_000, 0)
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestTenThousandLinesAreAppendedInAMoment(t *testing.T) {
	s := openTest(t, Options{Dir: t.TempDir()}) // with synchronous writes
	l := openLog(t, s, "l")
	records := make([]LogRecord, 10_000)
	for i := range records {
		records[i] = LogRecord{Origin: uint64(i + 1), Level: "info", Source: "startup", Output: fmt.Sprintf("line %d %s", i, strings.Repeat("x", 100))}
	}
	start := time.Now()
	last, err := l.Append(testContext(t), records...)
	took := time.Since(start)
	require.NoError(t, err)
	t.Logf("10,000 lines in %v", took)
	require.Less(t, took, 5*time.Second)
	got := readAll(t, l)
	require.Len(t, got, len(records))
	for i, r := range got {
		require.Equal(t, uint64(i+1), r.Origin)
	}
	require.Equal(t, last, got[len(got)-1].ID)
	require.Less(t, last, int64(1)<<53)
}

func TestLinesThatComeAgainAreLeftOut(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Options{Dir: dir, NoSync: true})
	l := openLog(t, s, "l")
	send := func(l *Log, origins ...uint64) int64 {
		records := make([]LogRecord, len(origins))
		for i, o := range origins {
			records[i] = LogRecord{Origin: o, Output: fmt.Sprint(o)}
		}
		id, err := l.Append(testContext(t), records...)
		require.NoError(t, err)
		return id
	}
	third := send(l, 1, 2, 3)
	require.Equal(t, third, send(l, 1, 2, 3), "the ID of the last line all the same")
	require.Equal(t, third, send(l, 2))
	send(l, 3, 4, 4, 3, 5)
	send(l, 0, 0) // no number: always new
	send(l, 5, 6)
	send(openLog(t, s, "l"), 5, 6, 7) // another handle knows as well
	send(l, 7, 8)                     // and this one learns from it
	send(openLog(t, s, "other"), 1)   // another log has its own numbers
	require.NoError(t, s.Close())

	s = openTest(t, Options{Dir: dir})
	l = openLog(t, s, "l")
	send(l, 0) // does not hide the number before
	send(l, 8, 9)
	require.Equal(t, []string{"1", "2", "3", "4", "5", "0", "0", "6", "7", "8", "0", "9"}, outputs(readAll(t, l)))

	require.NoError(t, l.Purge(testContext(t)))
	require.Empty(t, readAll(t, l))
	require.Greater(t, send(l, 1), third, "IDs are not used again")
	require.NoError(t, openLog(t, s, "l").Purge(testContext(t)))
	send(l, 1) // which this handle thinks the log has
	require.Equal(t, []string{"1"}, outputs(readAll(t, l)))
}

func TestUnseenIsWhatGrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seen := rapid.Uint64Range(0, 5).Draw(t, "seen")
		var records, want []LogRecord
		high := seen
		for i, origin := range rapid.SliceOf(rapid.Uint64Range(0, 10)).Draw(t, "origins") {
			r := LogRecord{ID: int64(i), Origin: origin}
			records = append(records, r)
			if origin == 0 || origin > high {
				want = append(want, r)
				high = max(high, origin)
			}
		}
		require.ElementsMatch(t, want, unseen(records, seen))
	})
}

func TestWritersWithHandlesOfTheirOwn(t *testing.T) {
	s := openTest(t, Options{})
	const writers, times = 4, 50
	errs := make(chan error, writers)
	var wg sync.WaitGroup
	for w := range writers {
		l := openLog(t, s, "l")
		wg.Go(func() {
			var err error
			for i := 0; i < times && err == nil; i++ {
				_, err = l.Append(testContext(t), LogRecord{Source: fmt.Sprint(w), Output: fmt.Sprint(i)})
			}
			errs <- err
		})
	}
	wg.Wait()
	next := make([]int, writers)
	for range writers {
		require.NoError(t, <-errs)
	}
	for _, r := range readAll(t, openLog(t, s, "l")) {
		var w int
		_, err := fmt.Sscan(r.Source, &w)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(next[w]), r.Output)
		next[w]++
	}
	for _, n := range next {
		require.Equal(t, times, n)
	}
}

func TestLongLinesAreCut(t *testing.T) {
	l := openLog(t, openTest(t, Options{}), "l")
	long := strings.Repeat("é", MaxOutput/2)
	worst := strings.Repeat("\x01", MaxOutput) // six bytes each when encoded
	appendLines(t, l, long, "x"+long, worst, worst, worst, "a\xffb\xfe\xfec")
	got := readAll(t, l)
	require.Len(t, got, 6)
	require.Equal(t, long, got[0].Output, "as long as may be")
	require.LessOrEqual(t, len(got[1].Output), MaxOutput)
	require.Greater(t, len(got[1].Output), MaxOutput-4)
	require.True(t, strings.HasSuffix(got[1].Output, "é"+cutMark), "cut between characters")
	require.True(t, utf8.ValidString(got[1].Output))
	require.Equal(t, worst, got[2].Output)
	require.Equal(t, "a\ufffdb\ufffdc", got[5].Output)

	_, err := l.Append(testContext(t), LogRecord{Level: strings.Repeat("x", 1000), Source: "ok", Stage: strings.Repeat("é", 100)})
	require.NoError(t, err)
	last, _, err := l.Last(testContext(t))
	require.NoError(t, err)
	require.Equal(t, LogRecord{ID: last.ID, CreatedAt: last.CreatedAt, Level: strings.Repeat("x", maxWord), Source: "ok", Stage: strings.Repeat("é", maxWord/2)}, last)
}

func TestTimesThatCannotBeKeptAreFilledIn(t *testing.T) {
	l := openLog(t, openTest(t, Options{}), "l")
	_, err := l.Append(testContext(t), LogRecord{CreatedAt: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)})
	require.NoError(t, err)
	last, _, err := l.Last(testContext(t))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), last.CreatedAt, time.Minute)
}

func TestALogIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 100_000
	s := openTest(t, Options{Dir: t.TempDir(), NoSync: true, LogBytesPerLog: limit})
	l, small := openLog(t, s, "l"), openLog(t, s, "small")
	appendLines(t, small, "kept")
	line := strings.Repeat("x", 997)
	for i := range 1000 {
		_, err := l.Append(testContext(t), LogRecord{Origin: uint64(i + 1), Output: line})
		require.NoError(t, err)
	}
	check := func(l *Log, last uint64) {
		got := readAll(t, l)
		require.LessOrEqual(t, len(got)*len(line), limit+limit/8)
		require.GreaterOrEqual(t, len(got)*len(line), limit-len(line))
		for i, r := range got {
			require.Equal(t, last-uint64(len(got)-1-i), r.Origin, "only the oldest are missing")
		}
	}
	check(l, 1000)
	again := openLog(t, s, "l") // which has to find out what there is
	for i := range 300 {
		_, err := again.Append(testContext(t), LogRecord{Origin: uint64(1001 + i), Output: line})
		require.NoError(t, err)
	}
	check(again, 1300)
	require.Equal(t, []string{"kept"}, outputs(readAll(t, small)))

	huge := strings.Repeat("y", MaxOutput)
	appendLines(t, again, huge, huge, huge, huge, huge, huge, huge, huge)
	require.Contains(t, outputs(readAll(t, again)), huge, "the end is kept, whatever its size")
}

func TestAllLogsTogetherAreBounded(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{Dir: t.TempDir(), NoSync: true, LogBytes: 1 << 20})
	line := strings.Repeat("x", 10_000)
	for i := range 300 {
		appendLines(t, openLog(t, s, fmt.Sprintf("l%d", i)), line)
	}
	info, err := s.logs.Info(testContext(t))
	require.NoError(t, err)
	require.LessOrEqual(t, info.State.Bytes, uint64(1<<20))
	require.EqualValues(t, maxLogBatches, info.Config.MaxMsgsPerSubject)
	require.Empty(t, readAll(t, openLog(t, s, "l0")), "the oldest went first")
	require.Len(t, readAll(t, openLog(t, s, "l299")), 1)
	appendLines(t, openLog(t, s, "l0"), "a log can begin anew")
}

func TestAppendWaitsForItsTurnNoLongerThanItsContext(t *testing.T) {
	l := openLog(t, openTest(t, Options{}), "l")
	l.turn <- struct{}{}
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	_, err := l.Append(ctx, LogRecord{})
	require.ErrorIs(t, err, context.Canceled)
}

func TestABatchOfAnotherFormatIsReported(t *testing.T) {
	s := openTest(t, Options{})
	l := openLog(t, s, "l")
	_, err := s.js.Publish(testContext(t), l.subject, []byte(`{"format":2,"records":1}`+"\n{}\n"))
	require.NoError(t, err)
	_, err = l.Read(testContext(t), 0, 0)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "read log l: log l at 1 is damaged: log batch has format 2, not 1")
	_, err = l.Append(testContext(t), LogRecord{})
	require.ErrorIs(t, err, ErrCorrupt)
}
