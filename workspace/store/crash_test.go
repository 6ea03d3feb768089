package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	childDirEnv    = "TUNNELER_STORE_TEST_DIR"
	childNoSyncEnv = "TUNNELER_STORE_TEST_NOSYNC"
)

// children are what this test binary can be started as.
var children = map[string]func(ctx context.Context, o Options) error{
	"hold":  holdUntilKilled,
	"write": writeUntilKilled,
	"full":  writeUntilFull,
	"other": openAsAnotherUser,
}

func runChild(role string) int {
	o := Options{Dir: os.Getenv(childDirEnv), NoSync: os.Getenv(childNoSyncEnv) != ""}
	if err := children[role](context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// child is a running copy of the test binary.
type child struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

func startChild(t *testing.T, role, dir string, noSync bool) *child {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+role, childDirEnv+"="+dir)
	if noSync {
		cmd.Env = append(cmd.Env, childNoSyncEnv+"=1")
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return &child{cmd: cmd, out: bufio.NewReader(out)}
}

// kill kills it with SIGKILL, once it has said so many lines, and returns all that it said.
func (c *child) kill(t *testing.T, after int) []string {
	t.Helper()
	var lines []string
	for len(lines) < after {
		line, err := c.out.ReadString('\n')
		require.NoError(t, err, "the child ended by itself")
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	require.NoError(t, c.cmd.Process.Kill())
	for {
		line, err := c.out.ReadString('\n')
		if err == io.EOF {
			break // what is left is a line that was cut short
		}
		require.NoError(t, err)
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	require.Error(t, c.cmd.Wait(), "it was killed")
	return lines
}

func holdUntilKilled(ctx context.Context, o Options) error {
	if _, err := Open(ctx, o); err != nil {
		return err
	}
	fmt.Println("open")
	select {}
}

func TestAnotherProcessIsKeptOutUntilTheFirstIsKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := startChild(t, "hold", dir, false)
	line, err := c.out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "open\n", line)

	before := tree(t, dir)
	_, err = Open(testContext(t), Options{Dir: dir})
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, fmt.Sprintf("is in use by process %d", c.cmd.Process.Pid))
	require.Equal(t, before, tree(t, dir), "nothing was touched")

	c.kill(t, 0)
	openTest(t, Options{Dir: dir})
}

// What the writing child does, so that the parent can tell what must be there.
const (
	crashWriters = 3
	crashBatch   = 5 // lines of one Append
)

func crashOutput(writer int, origin uint64) string {
	return fmt.Sprintf("%d/%d %s", writer, origin, strings.Repeat("x", int(origin%997)))
}

// writeUntilKilled says what was acknowledged: "kv WRITER COUNT", "log WRITER
// ORIGIN" or, of keys that come and go, "gone WRITER HOW-MANY".
func writeUntilKilled(ctx context.Context, o Options) error {
	s, err := Open(ctx, o)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	said := bufio.NewWriter(os.Stdout)
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(said, format+"\n", args...)
		said.Flush()
	}
	b, err := OpenBucket[doc](ctx, s, "b")
	if err != nil {
		return err
	}
	failed := make(chan error)
	for w := range crashWriters {
		go func() { failed <- writeDocs(ctx, b, w, say) }()
		go func() { failed <- writeLines(ctx, s, w, say) }()
	}
	return <-failed
}

func writeDocs(ctx context.Context, b *Bucket[doc], w int, say func(string, ...any)) error {
	key := fmt.Sprintf("k%d", w)
	if _, err := b.Create(ctx, key, doc{Name: "0"}); err != nil && !errors.Is(err, ErrExists) {
		return err
	}
	for i := 0; ; i++ {
		e, err := b.Mutate(ctx, key, func(d *doc) error {
			d.Count++
			d.Name = fmt.Sprint(d.Count)
			return nil
		})
		if err != nil {
			return err
		}
		say("kv %d %d", w, e.Value.Count)
		passing := fmt.Sprintf("%s.%d", key, i)
		e, err = b.Create(ctx, passing, doc{Name: "0"})
		if errors.Is(err, ErrExists) { // the child before was killed between the two
			e, err = b.Get(ctx, passing)
		}
		if err == nil {
			_, err = b.Delete(ctx, e.Key, e.Revision)
		}
		if err != nil {
			return err
		}
		say("gone %d %d", w, i+1)
	}
}

func writeLines(ctx context.Context, s *Store, w int, say func(string, ...any)) error {
	l, err := s.Log(fmt.Sprintf("l.%d", w))
	if err != nil {
		return err
	}
	last, _, err := l.Last(ctx)
	if err != nil {
		return err
	}
	for origin := last.Origin; ; {
		records := make([]LogRecord, crashBatch)
		for i := range records {
			origin++
			records[i] = LogRecord{Origin: origin, Output: crashOutput(w, origin)}
		}
		if _, err := l.Append(ctx, records...); err != nil {
			return err
		}
		say("log %d %d", w, origin)
	}
}

func TestWhatWasAcknowledgedSurvivesKill9(t *testing.T) {
	t.Parallel()
	for name, noSync := range map[string]bool{"synchronous writes": false, "no synchronous writes": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for round, lines := range []int{1, 500, 2000, 100} {
				said := startChild(t, "write", dir, noSync).kill(t, lines)
				acked := map[string]uint64{}
				for _, line := range said {
					var kind string
					var writer, n uint64
					_, err := fmt.Sscan(line, &kind, &writer, &n)
					require.NoError(t, err)
					acked[fmt.Sprintf("%s %d", kind, writer)] = n
				}
				start := time.Now()
				s, err := Open(testContext(t), Options{Dir: dir, NoSync: noSync})
				require.NoError(t, err)
				t.Logf("round %d: %d acknowledged, reopened in %v", round, len(said), time.Since(start).Round(100*time.Microsecond))
				checkDocs(t, s, acked)
				for w := range crashWriters {
					checkLines(t, s, w, acked[fmt.Sprintf("log %d", w)])
				}
				require.NoError(t, s.Close())
			}
		})
	}
}

func checkDocs(t *testing.T, s *Store, acked map[string]uint64) {
	list, err := openDocs(t, s, "b").List(testContext(t))
	require.NoError(t, err)
	found := map[string]int{}
	for _, e := range list {
		require.Equal(t, fmt.Sprint(e.Value.Count), e.Value.Name, "torn value %s", e.Key)
		found[e.Key] = e.Value.Count
		var w, i uint64
		if n, _ := fmt.Sscanf(e.Key, "k%d.%d", &w, &i); n == 2 {
			require.GreaterOrEqual(t, i, acked[fmt.Sprintf("gone %d", w)], "%s was deleted and is back", e.Key)
		}
	}
	for w := range crashWriters {
		want := int(acked[fmt.Sprintf("kv %d", w)])
		got := found[fmt.Sprintf("k%d", w)]
		require.GreaterOrEqual(t, got, want, "writer %d lost a write", w)
	}
}

func checkLines(t *testing.T, s *Store, w int, acked uint64) {
	l, err := s.Log(fmt.Sprintf("l.%d", w))
	require.NoError(t, err)
	var origin uint64
	var after int64
	for {
		records, err := l.Read(testContext(t), after, 0)
		require.NoError(t, err)
		if len(records) == 0 {
			break
		}
		for _, r := range records {
			origin++
			require.Equal(t, origin, r.Origin, "log %d has a gap or a repetition", w)
			require.Equal(t, crashOutput(w, origin), r.Output)
			after = r.ID
		}
	}
	require.GreaterOrEqual(t, origin, acked, "log %d lost lines", w)
	require.Zero(t, origin%crashBatch, "log %d has half an append", w)
}
