package provision

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/tunneler/tunneler/events"
)

// outputFile makes the directory of a workspace and opens its output file as its processes do.
func outputFile(t testing.TB) (dir string, output *os.File) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, privateDir), 0o700))
	output, err := os.OpenFile(logPath(dir), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, output.Close()) })
	return dir, output
}

// follow opens a follower; its test closes it.
func follow(t testing.TB, dir string, fresh bool) (*follower, *lines) {
	t.Helper()
	out := newLines()
	f, err := openFollower(dir, fresh, &sink{out: out.out})
	require.NoError(t, err)
	return f, out
}

// pollAll polls until nothing is left.
func pollAll(t require.TestingT, f *follower) {
	for more := true; more; {
		var err error
		more, err = f.poll()
		require.NoError(t, err)
	}
}

func write(t testing.TB, output *os.File, text string) {
	t.Helper()
	_, err := output.WriteString(text)
	require.NoError(t, err)
}

func TestLinesAreDeliveredOnceTheyAreWholeOrNothingFollows(t *testing.T) {
	dir, output := outputFile(t)
	f, out := follow(t, dir, false)
	write(t, output, "one\r\ntwo\n\nthr")
	pollAll(t, f)
	require.Equal(t, []string{"one", "two", ""}, out.of(SourceProcess))
	write(t, output, "ee\nbad \xff\xfe utf-8\nrest")
	require.NoError(t, f.drain())
	require.Equal(t, []string{"one", "two", "", "three", "bad \ufffd utf-8", "rest"}, out.of(SourceProcess))
	require.True(t, out.all[5].Partial)
	require.False(t, out.all[4].Partial)
	require.NoError(t, f.close())
}

func TestALongLineIsCutBetweenCharacters(t *testing.T) {
	dir, output := outputFile(t)
	f, out := follow(t, dir, false)
	long := "x" + strings.Repeat("é", maxLine)
	write(t, output, strings.Repeat("a", maxLine)+"\n"+long+"\n")
	pollAll(t, f)
	texts := out.of(SourceProcess)
	require.Len(t, texts, 4)
	require.Equal(t, strings.Repeat("a", maxLine), texts[0])
	require.Equal(t, long, strings.Join(texts[1:], ""))
	for i, line := range out.all {
		require.LessOrEqual(t, len(line.Text), maxLine)
		require.True(t, utf8.ValidString(line.Text))
		require.Equal(t, i == 1 || i == 2, line.Partial)
	}
	require.NoError(t, f.close())
}

func TestTheNextFollowerGoesOnWhereTheLastOneWas(t *testing.T) {
	dir, output := outputFile(t)
	f, out := follow(t, dir, false)
	write(t, output, "one\nhal")
	pollAll(t, f)
	require.Equal(t, []string{"one"}, out.of(SourceProcess))
	require.NoError(t, f.close()) // as if it had been killed: half a line was not delivered

	write(t, output, "f\ntwo\n")
	f, out = follow(t, dir, false)
	pollAll(t, f)
	require.Equal(t, []string{"half", "two"}, out.of(SourceProcess))
	require.NoError(t, f.close())

	f, out = follow(t, dir, true)
	write(t, output, "new\n")
	pollAll(t, f)
	require.Equal(t, []string{"new"}, out.of(SourceProcess))
	require.NoError(t, f.close())

	require.NoError(t, os.WriteFile(filepath.Join(dir, privateDir, "output.position"), []byte("garbage"), 0o600))
	f, out = follow(t, dir, false)
	pollAll(t, f)
	require.Equal(t, []string{"new"}, out.of(SourceProcess), "better twice than never")
	require.NoError(t, f.close())
}

func TestALargeOutputFileIsEmptiedOnceItIsDelivered(t *testing.T) {
	dir, output := outputFile(t)
	f, out := follow(t, dir, false)
	line := strings.Repeat("x", 1<<20-1) + "\n"
	for range 16 {
		write(t, output, line)
	}
	write(t, output, "last\nhalf")
	pollAll(t, f)
	info, err := output.Stat()
	require.NoError(t, err)
	require.Zero(t, info.Size())
	texts := out.of(SourceProcess)
	require.Equal(t, "last", texts[len(texts)-2])
	require.Equal(t, "half", texts[len(texts)-1])
	write(t, output, "goes on\n")
	pollAll(t, f)
	require.Contains(t, out.of(SourceProcess), "goes on")
	require.NoError(t, f.close())

	f, out = follow(t, dir, false)
	pollAll(t, f)
	require.Empty(t, out.of(SourceProcess))
	require.NoError(t, f.close())
}

func TestOutputThatIsFarAheadIsDroppedAndSaidToBe(t *testing.T) {
	dir, output := outputFile(t)
	f, out := follow(t, dir, false)
	require.NoError(t, output.Truncate(maxBacklog+1))
	pollAll(t, f)
	require.Empty(t, out.of(SourceProcess))
	require.Equal(t, events.LogWarn, out.find(t, fmt.Sprintf("%d bytes of output were dropped", maxBacklog+1)).Level)
	write(t, output, "goes on\n")
	pollAll(t, f)
	require.Equal(t, []string{"goes on"}, out.of(SourceProcess))
	require.NoError(t, f.close())
}

func TestAFileThatSomebodyElseEmptiedIsReadFromItsBeginning(t *testing.T) {
	dir, output := outputFile(t)
	f, out := follow(t, dir, false)
	write(t, output, "a long first line\nhalf")
	pollAll(t, f)
	require.NoError(t, output.Truncate(0))
	write(t, output, "new\n")
	pollAll(t, f)
	require.Equal(t, []string{"a long first line", "half", "new"}, out.of(SourceProcess))
	require.NoError(t, f.close())
}

func TestHalfALineIsDeliveredAfterASecondOfSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, output := outputFile(t)
		f, out := follow(t, dir, false)
		tail := startTail(f, zap.NewNop())
		write(t, output, "Password: ")
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		require.Empty(t, out.of(SourceProcess))
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, []string{"Password: "}, out.of(SourceProcess))

		// However long it was silent, the next line comes soon.
		time.Sleep(time.Hour)
		write(t, output, "welcome\n")
		time.Sleep(longestLook)
		synctest.Wait()
		require.Equal(t, []string{"Password: ", "welcome"}, out.of(SourceProcess))
		write(t, output, "undelivered")
		tail.detach()
		require.Equal(t, []string{"Password: ", "welcome"}, out.of(SourceProcess))
	})
}

func TestNoByteIsLostHoweverItIsWrittenAndFollowed(t *testing.T) {
	dir, output := outputFile(t)
	rapid.Check(t, func(r *rapid.T) {
		f, out := follow(t, dir, true)
		var want strings.Builder
		for _, step := range rapid.SliceOfN(rapid.IntRange(0, 9), 1, 20).Draw(r, "steps") {
			switch step {
			case 0:
				pollAll(r, f)
			case 1: // the server is killed, and comes back
				require.NoError(r, f.close())
				var err error
				f, err = openFollower(dir, false, &sink{out: out.out})
				require.NoError(r, err)
			default:
				text := rapid.StringOfN(rapid.SampledFrom([]rune("ab é\n")), 0, 20, -1).Draw(r, "text")
				text = strings.Repeat(text, rapid.SampledFrom([]int{1, 1, 5000}).Draw(r, "times"))
				want.WriteString(text)
				write(t, output, text)
			}
		}
		require.NoError(r, f.drain())
		require.NoError(r, f.close())
		var got strings.Builder
		for _, line := range out.all {
			got.WriteString(line.Text)
			if !line.Partial {
				got.WriteByte('\n')
			}
		}
		require.Equal(r, want.String(), got.String())
	})
}
