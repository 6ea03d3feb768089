package store

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestAStoreIsReadyUntilItIsClosed(t *testing.T) {
	s, err := Open(testContext(t), Options{Dir: filepath.Join(t.TempDir(), "not", "there", "yet")})
	require.NoError(t, err)
	require.NoError(t, s.Ready(testContext(t)))
	b := openDocs(t, s, "b")
	l, err := s.Log("l")
	require.NoError(t, err)

	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "a second Close is harmless")
	require.ErrorIs(t, s.Ready(testContext(t)), ErrClosed)
	_, err = b.Create(testContext(t), "k", doc{})
	require.ErrorIs(t, err, ErrClosed)
	_, err = b.List(testContext(t))
	require.ErrorIs(t, err, ErrClosed)
	_, err = NewCache(testContext(t), b)
	require.ErrorIs(t, err, ErrClosed)
	_, err = OpenBucket[doc](testContext(t), s, "c")
	require.ErrorIs(t, err, ErrClosed)
	_, err = l.Append(testContext(t), LogRecord{})
	require.ErrorIs(t, err, ErrClosed)
	_, err = l.Read(testContext(t), 0, 0)
	require.ErrorIs(t, err, ErrClosed)
}

func TestWhatWasWrittenIsThereAfterReopening(t *testing.T) {
	dir := t.TempDir()
	ctx := testContext(t)
	s, err := Open(ctx, Options{Dir: dir})
	require.NoError(t, err)
	kept, err := openDocs(t, s, "b").Create(ctx, "kept", doc{Name: "x"})
	require.NoError(t, err)
	gone, err := openDocs(t, s, "b").Create(ctx, "gone", doc{Name: "y"})
	require.NoError(t, err)
	_, err = openDocs(t, s, "b").Delete(ctx, "gone", gone.Revision)
	require.NoError(t, err)
	require.NoError(t, s.Close())

	s = openTest(t, Options{Dir: dir})
	b := openDocs(t, s, "b")
	list, err := b.List(ctx)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, kept.Value, list[0].Value)
	require.Equal(t, kept.Revision, list[0].Revision)
	again, err := b.Create(ctx, "gone", doc{})
	require.NoError(t, err)
	require.Greater(t, again.Revision, gone.Revision, "revisions go on growing")
}

func TestADirectoryBelongsToOneStore(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(testContext(t), Options{Dir: dir})
	require.NoError(t, err)

	_, err = Open(testContext(t), Options{Dir: dir})
	require.ErrorIs(t, err, ErrInUse)
	var inUse *InUseError
	require.ErrorAs(t, err, &inUse)
	require.Equal(t, InUseError{Dir: dir, PID: os.Getpid()}, *inUse)
	require.NoError(t, s.Ready(testContext(t)), "the first one was not disturbed")

	require.NoError(t, s.Close())
	openTest(t, Options{Dir: dir})
}

func TestFormatsOfOtherVersionsAreRefusedUntouched(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, dir string)
		found   string
	}{
		"a newer version": {
			func(t *testing.T, dir string) { write(t, filepath.Join(dir, versionName), "2\n") }, "2"},
		"an older version": {
			func(t *testing.T, dir string) { write(t, filepath.Join(dir, versionName), "0\n") }, "0"},
		"a version file that is no number": {
			func(t *testing.T, dir string) { write(t, filepath.Join(dir, versionName), "one\n") }, `"one"`},
		"an empty version file": {
			func(t *testing.T, dir string) { write(t, filepath.Join(dir, versionName), "") }, `""`},
		"data without a version": {
			func(t *testing.T, dir string) {
				require.NoError(t, os.MkdirAll(filepath.Join(dir, jetstreamName, "$G"), 0o700))
			}, "unknown (data, but no version file)"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			tc.prepare(t, dir)
			before := tree(t, dir)
			_, err := Open(testContext(t), Options{Dir: dir})
			require.ErrorIs(t, err, ErrIncompatible)
			var incompatible *IncompatibleError
			require.ErrorAs(t, err, &incompatible)
			require.Equal(t, IncompatibleError{Where: dir, Found: tc.found, Want: 1}, *incompatible)
			require.ErrorContains(t, err, "has store format "+tc.found+", this version works with format 1")
			after := tree(t, dir)
			delete(after, lockName)
			require.Equal(t, before, after)
		})
	}
}

func TestADirectoryThatCannotBeMadeIsOneClearError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	_, err := Open(testContext(t), Options{Dir: filepath.Join(file, "dir")})
	var path *fs.PathError
	require.ErrorAs(t, err, &path)
	require.ErrorContains(t, err, "cannot open store: cannot create data directory: mkdir "+file)
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]Options{
		"neither directory nor URL":  {},
		"negative log size":          {Dir: t.TempDir(), LogBytes: -1},
		"tiny log size":              {Dir: t.TempDir(), LogBytes: 1},
		"huge log size":              {Dir: t.TempDir(), LogBytes: maxLogBytes + 1},
		"negative size of one log":   {Dir: t.TempDir(), LogBytesPerLog: -1},
		"a server that is not there": {URL: "nats://127.0.0.1:1"},
		"credentials that are not":   {URL: "nats://127.0.0.1:1", CredentialsFile: filepath.Join(t.TempDir(), "none")},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(testContext(t), o)
			require.ErrorContains(t, err, "cannot open store: ")
		})
	}
}

func TestACancelledOpenLeavesNothingRunning(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	dir := t.TempDir()
	_, err := Open(ctx, Options{Dir: dir})
	require.ErrorIs(t, err, context.Canceled)
	openTest(t, Options{Dir: dir})
}

func TestLimitsCanChangeBetweenOpenings(t *testing.T) {
	dir := t.TempDir()
	for _, size := range []int64{1 << 30, 64 << 30, 2 << 20} {
		s, err := Open(testContext(t), Options{Dir: dir, LogBytes: size})
		require.NoError(t, err)
		info, err := s.logs.Info(testContext(t))
		require.NoError(t, err)
		require.Equal(t, size, info.Config.MaxBytes)
		require.NoError(t, s.Close())
	}
}

func TestTheServersNoticesAreDebugLines(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	openTest(t, Options{Dir: t.TempDir(), Logger: zap.New(core)})
	require.NotZero(t, logs.FilterMessage("Starting nats-server").Len())
	for _, entry := range logs.All() {
		require.Equal(t, zap.DebugLevel, entry.Level, entry.Message)
	}
}

func TestFilesAreForTheOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := openTest(t, Options{Dir: dir})
	_, err := openDocs(t, s, "b").Create(testContext(t), "k", doc{})
	require.NoError(t, err)
	for _, name := range []string{".", jetstreamName} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, name)
	}
}

func TestReadyRespectsItsContext(t *testing.T) {
	s := openTest(t, Options{})
	ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	require.ErrorIs(t, s.Ready(ctx), context.DeadlineExceeded)
}

func write(t testing.TB, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
}

// tree returns the content of every file below dir, by path.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		files[rel] = string(text)
		return err
	}))
	return files
}

func TestAPanicOfTheServerBecomesAnError(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	err := guard("dir", zap.New(core), func() { panic("boom") })
	require.ErrorIs(t, err, ErrCorrupt)
	require.EqualError(t, err, "dir is damaged: the embedded server panicked: boom")
	require.Equal(t, 1, logs.FilterMessage("embedded server panicked").Len())
}
