package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// nobody is any user but root.
const nobody = 65534

// openAsAnotherUser opens the working directory without the rights to write to it.
func openAsAnotherUser(ctx context.Context, o Options) error {
	if err := os.Chdir(o.Dir); err != nil {
		return err
	}
	if os.Getuid() == 0 {
		if err := syscall.Setuid(nobody); err != nil {
			return err
		}
	}
	s, err := Open(ctx, Options{Dir: "."})
	if err == nil {
		return errors.Join(errors.New("it was opened"), s.Close())
	}
	fmt.Println(strings.ReplaceAll(err.Error(), "\n", " "))
	return nil
}

func TestADirectoryThatCannotBeWrittenIsOneClearError(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"an empty one": func(t *testing.T, dir string) {
			require.NoError(t, os.Mkdir(filepath.Join(dir, jetstreamName), 0o700))
		},
		"one with a store in it": func(t *testing.T, dir string) {
			s, err := Open(testContext(t), Options{Dir: dir})
			require.NoError(t, err)
			require.NoError(t, s.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			prepare(t, dir)
			before := tree(t, dir)
			delete(before, lockName)
			for _, d := range []string{filepath.Join(dir, jetstreamName), dir} {
				require.NoError(t, os.Chmod(d, 0o555))
				t.Cleanup(func() { _ = os.Chmod(d, 0o700) })
			}
			c := startChild(t, "other", dir, false)
			line, _ := c.out.ReadString('\n')
			require.NoError(t, c.cmd.Wait())
			// Where it fails depends on whether the tests run as root.
			require.Regexp(t, `^cannot open store: cannot (lock|write to) data directory: .*permission denied\n$`, line)
			after := tree(t, dir)
			delete(after, lockName)
			require.Equal(t, before, after)
		})
	}
}

// writeUntilFull bounds the size of files of this process, which to a store is a
// disk that is full, and writes until that is noticed.
func writeUntilFull(ctx context.Context, o Options) error {
	s, err := Open(ctx, o)
	if err != nil {
		return err
	}
	b, err := OpenBucket[string](ctx, s, "b")
	if err != nil {
		return err
	}
	l, err := s.Log("l")
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGXFSZ)
	const limit = 300_000
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	text := strings.Repeat("x", 10_000)
	written, lines := 0, 0
	for err == nil && written < 1000 {
		if _, err = b.Create(ctx, fmt.Sprintf("k%d", written), text); err == nil {
			written++
			if _, err = l.Append(ctx, LogRecord{Output: text}); err == nil {
				lines++
			}
		}
	}
	if !errors.Is(err, ErrWriteFailed) {
		return fmt.Errorf("after %d values and %d lines: %w", written, lines, err)
	}
	start := time.Now()
	_, err1 := b.Create(ctx, "another", "x")
	_, err2 := l.Append(ctx, LogRecord{Output: "another"})
	if !errors.Is(err1, ErrWriteFailed) || !errors.Is(err2, ErrWriteFailed) || time.Since(start) > callTimeout {
		return fmt.Errorf("further writes, after %v: %w, %w", time.Since(start), err1, err2)
	}
	if err := s.Ready(ctx); !errors.Is(err, ErrWriteFailed) {
		return fmt.Errorf("it says that it is ready: %w", err)
	}
	list, err := b.List(ctx)
	if err != nil || len(list) != written {
		return fmt.Errorf("it lists %d of %d values: %w", len(list), written, err)
	}
	if err := s.Close(); err != nil {
		return err
	}
	fmt.Println(written, lines)
	return nil
}

func TestAFullDiskLosesNothingThatWasAcknowledged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := startChild(t, "full", dir, false)
	line, _ := c.out.ReadString('\n')
	require.NoError(t, c.cmd.Wait())
	var written, lines int
	_, err := fmt.Sscan(line, &written, &lines)
	require.NoError(t, err)
	require.NotZero(t, written)
	require.NotZero(t, lines)

	s := openTest(t, Options{Dir: dir})
	require.NoError(t, s.Ready(testContext(t)))
	b, err := OpenBucket[string](testContext(t), s, "b")
	require.NoError(t, err)
	list, err := b.List(testContext(t))
	require.NoError(t, err)
	require.Len(t, list, written)
	l, err := s.Log("l")
	require.NoError(t, err)
	records, err := l.Read(testContext(t), 0, 0)
	require.NoError(t, err)
	require.Len(t, records, lines)
	_, err = b.Create(testContext(t), "after", "x")
	require.NoError(t, err, "it can be written to again")
}
