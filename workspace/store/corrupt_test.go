package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// filledDir returns a closed store with 20 values and 20 log lines of 100 bytes each.
func filledDir(t *testing.T) string {
	dir := t.TempDir()
	ctx := testContext(t)
	s, err := Open(ctx, Options{Dir: dir})
	require.NoError(t, err)
	b := openDocs(t, s, "b")
	l, err := s.Log("l")
	require.NoError(t, err)
	for i := range 20 {
		_, err := b.Create(ctx, fmt.Sprintf("k%d", i), doc{Name: strings.Repeat("x", 100)})
		require.NoError(t, err)
		_, err = l.Append(ctx, LogRecord{Output: strings.Repeat("x", 100)})
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	return dir
}

// change rewrites a file.
func change(t *testing.T, f func([]byte) []byte, path ...string) {
	t.Helper()
	name := filepath.Join(path...)
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, f(data), 0o600))
}

func flip(at int) func([]byte) []byte {
	return func(data []byte) []byte {
		data[(at+len(data))%len(data)] ^= 1
		return data
	}
}

func keep(n int) func([]byte) []byte {
	return func(data []byte) []byte { return data[:(n+len(data))%len(data)] }
}

// killed makes the directory look as after a kill.
func killed(t *testing.T, dir string) {
	require.NoError(t, os.Remove(filepath.Join(dir, manifestName)))
	for _, stream := range []string{"KV_b", "LOGS"} {
		require.NoError(t, os.Remove(filepath.Join(streamsDir(dir), stream, messagesName, "index.db")))
	}
}

func TestDamageIsReportedAndNothingTouched(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, dir, bucket string){
		"a bad byte in a value": func(t *testing.T, _, bucket string) {
			change(t, flip(2000), bucket, "msgs", "1.blk")
		},
		"a bad byte in the last value": func(t *testing.T, _, bucket string) {
			change(t, flip(-20), bucket, "msgs", "1.blk")
		},
		"a bad byte in a length": func(t *testing.T, _, bucket string) {
			change(t, flip(1), bucket, "msgs", "1.blk")
		},
		"a bad byte in a value, after a kill": func(t *testing.T, dir, bucket string) {
			killed(t, dir)
			change(t, flip(2000), bucket, "msgs", "1.blk")
		},
		"a bad byte in a length, after a kill": func(t *testing.T, dir, bucket string) {
			killed(t, dir)
			change(t, flip(2), bucket, "msgs", "1.blk")
		},
		"a torn block that is not the last one, after a kill": func(t *testing.T, dir, bucket string) {
			killed(t, dir)
			change(t, keep(-20), bucket, "msgs", "1.blk")
			write(t, filepath.Join(bucket, "msgs", "2.blk"), "")
		},
		"values cut off": func(t *testing.T, _, bucket string) {
			change(t, keep(2000), bucket, "msgs", "1.blk")
		},
		"values gone": func(t *testing.T, _, bucket string) {
			require.NoError(t, os.Remove(filepath.Join(bucket, "msgs", "1.blk")))
		},
		"log lines gone": func(t *testing.T, dir, _ string) {
			require.NoError(t, os.Remove(filepath.Join(streamsDir(dir), "LOGS", "msgs", "1.blk")))
		},
		"a bucket gone": func(t *testing.T, _, bucket string) {
			require.NoError(t, os.RemoveAll(bucket))
		},
		"a bad description of a bucket": func(t *testing.T, _, bucket string) {
			change(t, flip(30), bucket, "meta.inf")
		},
		"a bad description of a bucket, after a kill": func(t *testing.T, dir, bucket string) {
			killed(t, dir)
			change(t, flip(30), bucket, "meta.inf")
		},
		"no checksum of a description": func(t *testing.T, _, bucket string) {
			require.NoError(t, os.Remove(filepath.Join(bucket, "meta.sum")))
		},
		"no checksum of a description, after a kill": func(t *testing.T, dir, bucket string) {
			killed(t, dir)
			require.NoError(t, os.Remove(filepath.Join(bucket, "meta.sum")))
		},
		"a bad manifest": func(t *testing.T, dir, _ string) {
			write(t, filepath.Join(dir, manifestName), "?")
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filledDir(t)
			damage(t, dir, filepath.Join(streamsDir(dir), "KV_b"))
			before := blocks(t, dir)
			for range 2 { // it does not go away by trying again
				_, err := Open(testContext(t), Options{Dir: dir})
				require.ErrorIs(t, err, ErrCorrupt)
				require.Equal(t, before, blocks(t, dir))
			}
		})
	}
}

// blocks returns the content of what cannot be made anew.
func blocks(t *testing.T, dir string) map[string]string {
	files := tree(t, dir)
	for name := range files {
		if ext := filepath.Ext(name); ext != ".blk" && ext != ".inf" && ext != ".sum" {
			delete(files, name)
		}
	}
	return files
}

func TestDamageThatCanBeMadeGoodIs(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		damage        func(t *testing.T, dir, bucket string)
		values, lines int
	}{
		"no index": {func(t *testing.T, _, bucket string) {
			require.NoError(t, os.Remove(filepath.Join(bucket, "msgs", "index.db")))
		}, 20, 20},
		"a bad index": {func(t *testing.T, _, bucket string) {
			change(t, flip(10), bucket, "msgs", "index.db")
		}, 20, 20},
		"a write cut short by a kill": {func(t *testing.T, dir, bucket string) {
			killed(t, dir)
			change(t, keep(-20), bucket, "msgs", "1.blk")
		}, 19, 20},
		"a write cut short by a loss of power, filled with zeros": {func(t *testing.T, dir, bucket string) {
			killed(t, dir)
			change(t, func(data []byte) []byte { return append(data, make([]byte, 5000)...) }, bucket, "msgs", "1.blk")
		}, 20, 20},
		"a log line cut short by a kill": {func(t *testing.T, dir, _ string) {
			killed(t, dir)
			change(t, keep(-20), streamsDir(dir), "LOGS", "msgs", "1.blk")
		}, 20, 19},
		"a bucket whose making was cut short": {func(t *testing.T, dir, _ string) {
			half := filepath.Join(streamsDir(dir), "KV_half")
			require.NoError(t, os.MkdirAll(filepath.Join(half, "msgs"), 0o700))
			write(t, filepath.Join(half, "msgs", "1.blk"), "")
			write(t, filepath.Join(half, "meta.inf"), "{}")
		}, 20, 20},
		"a stream that was being deleted": {func(t *testing.T, dir, _ string) {
			require.NoError(t, os.MkdirAll(filepath.Join(streamsDir(dir), ".KV_gone", "msgs"), 0o700))
		}, 20, 20},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filledDir(t)
			tc.damage(t, dir, filepath.Join(streamsDir(dir), "KV_b"))
			for range 2 {
				s, err := Open(testContext(t), Options{Dir: dir})
				require.NoError(t, err)
				list, err := openDocs(t, s, "b").List(testContext(t))
				require.NoError(t, err)
				require.Len(t, list, tc.values)
				l, err := s.Log("l")
				require.NoError(t, err)
				records, err := l.Read(testContext(t), 0, 0)
				require.NoError(t, err)
				require.Len(t, records, tc.lines)
				_, err = openDocs(t, s, "half").List(testContext(t))
				require.NoError(t, err)
				require.NoError(t, s.Close())
			}
		})
	}
}

func TestADamagedLogIsReadAroundTheDamage(t *testing.T) {
	dir := filledDir(t)
	change(t, flip(2000), streamsDir(dir), "LOGS", "msgs", "1.blk")
	core, logs := observer.New(zap.WarnLevel)
	s := openTest(t, Options{Dir: dir, Logger: zap.New(core)})
	l, err := s.Log("l")
	require.NoError(t, err)
	records, err := l.Read(testContext(t), 0, 0)
	require.NoError(t, err)
	require.Len(t, records, 19)
	require.Equal(t, 1, logs.FilterMessage("lines of a log are damaged and left out").Len())
}

func TestADamagedEndOfALogIsReported(t *testing.T) {
	dir := filledDir(t)
	change(t, flip(-20), streamsDir(dir), "LOGS", "msgs", "1.blk")
	s := openTest(t, Options{Dir: dir})
	l, err := s.Log("l")
	require.NoError(t, err)
	records, err := l.Read(testContext(t), 0, 0)
	require.NoError(t, err)
	require.Len(t, records, 19)
	_, err = l.Read(testContext(t), records[18].ID, 0)
	require.ErrorIs(t, err, ErrCorrupt)
	_, _, err = l.Last(testContext(t))
	require.ErrorIs(t, err, ErrCorrupt)
	_, err = l.Append(testContext(t), LogRecord{})
	require.ErrorIs(t, err, ErrCorrupt)
	for _, err := range l.Follow(testContext(t), records[18].ID) {
		require.ErrorIs(t, err, ErrCorrupt)
	}
}

// What the disk does to a bucket while the store is open shows when it is read.
func TestDamageUnderARunningStoreIsNotTakenForAbsence(t *testing.T) {
	dir := filledDir(t)
	s := openTest(t, Options{Dir: dir})
	change(t, flip(2000), streamsDir(dir), "KV_b", "msgs", "1.blk")
	b := openDocs(t, s, "b")
	_, err := b.List(testContext(t))
	require.ErrorIs(t, err, ErrCorrupt)
	_, err = NewCache(testContext(t), b)
	require.ErrorIs(t, err, ErrCorrupt)
	damaged := 0
	for i := range 20 {
		if _, err := b.Get(testContext(t), fmt.Sprintf("k%d", i)); err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			damaged++
		}
	}
	require.Equal(t, 1, damaged)
	require.NoError(t, s.Ready(testContext(t)), "what is left can be used")
}

// The reader of blocks must agree with the server about what a record is.
func TestTheServersBlocksAreReadToTheEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(testContext(t), Options{Dir: dir, NoSync: true})
	require.NoError(t, err)
	b := openDocs(t, s, "b")
	for i := range 3000 { // several blocks, with values replaced and deleted
		e, err := b.Create(testContext(t), fmt.Sprintf("k%d", i), doc{Name: strings.Repeat("x", 5000)})
		require.NoError(t, err)
		switch i % 5 {
		case 0:
			_, err = b.Delete(testContext(t), e.Key, e.Revision)
		case 1:
			_, err = b.Update(testContext(t), e.Key, doc{}, e.Revision)
		}
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	names, err := blockFiles(filepath.Join(streamsDir(dir), "KV_b", messagesName))
	require.NoError(t, err)
	require.Greater(t, len(names), 1)
	require.NoError(t, checkBuckets(dir, true))
}
