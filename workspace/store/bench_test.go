package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// modes are with and without synchronous writes.
var modes = map[string]bool{"sync": false, "nosync": true}

func BenchmarkOpen(b *testing.B) {
	b.Run("fresh", func(b *testing.B) {
		dir := b.TempDir()
		for i := range b.N {
			s, err := Open(context.Background(), Options{Dir: filepath.Join(dir, fmt.Sprint(i))})
			require.NoError(b, err)
			b.StopTimer()
			require.NoError(b, s.Close())
			b.StartTimer()
		}
	})
	// Four buckets and some logs, closed in good order.
	b.Run("again", func(b *testing.B) {
		dir := b.TempDir()
		s, err := Open(context.Background(), Options{Dir: dir})
		require.NoError(b, err)
		for i := range 4 {
			bucket := openDocs(b, s, fmt.Sprint("b", i))
			for k := range 250 {
				_, err := bucket.Create(context.Background(), fmt.Sprint("k", k), doc{Name: "x"})
				require.NoError(b, err)
			}
		}
		for i := range 100 {
			appendLines(b, openLog(b, s, fmt.Sprint("l", i)), "a", "b", "c")
		}
		require.NoError(b, s.Close())
		b.ResetTimer()
		for range b.N {
			s, err := Open(context.Background(), Options{Dir: dir})
			require.NoError(b, err)
			b.StopTimer()
			require.NoError(b, s.Close())
			b.StartTimer()
		}
	})
}

// BenchmarkFootprint reports what an open store takes, with four buckets.
func BenchmarkFootprint(b *testing.B) {
	var before, after runtime.MemStats
	for range b.N {
		runtime.GC()
		runtime.ReadMemStats(&before)
		goroutines := runtime.NumGoroutine()
		s, err := Open(context.Background(), Options{Dir: b.TempDir()})
		require.NoError(b, err)
		report := func(what string) {
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/1024, what+"-KiB")
			b.ReportMetric(float64(runtime.NumGoroutine()-goroutines), what+"-goroutines")
		}
		report("open")
		for i := range 4 {
			_, err := NewCache(context.Background(), openDocs(b, s, fmt.Sprint("b", i)))
			require.NoError(b, err)
		}
		report("4-caches")
		require.NoError(b, s.Close())
	}
}

func BenchmarkPut(b *testing.B) {
	for name, noSync := range modes {
		b.Run(name, func(b *testing.B) {
			bucket := openDocs(b, openTest(b, Options{Dir: b.TempDir(), NoSync: noSync}), "b")
			e, err := bucket.Create(context.Background(), "k", doc{})
			require.NoError(b, err)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				e, err = bucket.Update(context.Background(), "k", doc{Name: "a value of some length", Count: i}, e.Revision)
				require.NoError(b, err)
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	bucket := openDocs(b, openTest(b, Options{}), "b")
	put(b, bucket, "k", 1)
	cache := openCache(b, bucket)
	b.Run("bucket", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			_, err := bucket.Get(context.Background(), "k")
			require.NoError(b, err)
		}
	})
	b.Run("cache", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if _, ok := cache.Get("k"); !ok {
				b.Fatal("not found")
			}
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	for name, noSync := range modes {
		for _, lines := range []int{1, 100, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", name, lines), func(b *testing.B) {
				l := openLog(b, openTest(b, Options{Dir: b.TempDir(), NoSync: noSync}), "l")
				records := make([]LogRecord, lines)
				for i := range records {
					records[i] = LogRecord{Level: "info", Source: "startup", Output: "a line of a log of about as many characters as a line has, some eighty"}
				}
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					_, err := l.Append(context.Background(), records...)
					require.NoError(b, err)
				}
				b.ReportMetric(float64(b.N*lines)/b.Elapsed().Seconds(), "lines/s")
			})
		}
	}
}

func BenchmarkRead(b *testing.B) {
	l := openLog(b, openTest(b, Options{}), "l")
	records := make([]LogRecord, 10_000)
	for i := range records {
		records[i].Output = "a line of a log of about as many characters as a line has, some eighty"
	}
	_, err := l.Append(context.Background(), records...)
	require.NoError(b, err)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		got, err := l.Read(context.Background(), 0, 0)
		require.NoError(b, err)
		require.Len(b, got, len(records))
	}
	b.ReportMetric(float64(b.N*len(records))/b.Elapsed().Seconds(), "lines/s")
}

// BenchmarkSubjectPerLog and BenchmarkStreamPerLog show why all logs share a
// stream: what one more log with one line costs, either way.
func BenchmarkSubjectPerLog(b *testing.B) {
	benchmarkLogs(b, func(s *Store, i int) error {
		l, err := s.Log(fmt.Sprint("l", i))
		if err == nil {
			_, err = l.Append(context.Background(), LogRecord{Output: "x"})
		}
		return err
	})
}

func BenchmarkStreamPerLog(b *testing.B) {
	benchmarkLogs(b, func(s *Store, i int) error {
		subject := fmt.Sprint("log.", i)
		_, err := s.js.CreateStream(context.Background(), jetstream.StreamConfig{Name: fmt.Sprint("L", i), Subjects: []string{subject}})
		if err == nil {
			_, err = s.js.Publish(context.Background(), subject, []byte("x"))
		}
		return err
	})
}

func benchmarkLogs(b *testing.B, addLog func(*Store, int) error) {
	s := openTest(b, Options{Dir: b.TempDir()})
	require.NoError(b, addLog(s, -1))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	b.ResetTimer()
	for i := range b.N {
		require.NoError(b, addLog(s, i))
	}
	b.StopTimer()
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/1024/float64(b.N), "KiB/log")
	b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/float64(b.N), "goroutines/log")
	b.ReportMetric(float64(countFiles(b, s.dir.path))/float64(b.N), "files/log")
}

func countFiles(b *testing.B, dir string) int {
	n := 0
	require.NoError(b, filepath.WalkDir(dir, func(_ string, _ os.DirEntry, err error) error {
		n++
		return err
	}))
	return n
}
