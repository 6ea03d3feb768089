package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/template"
)

func TestAProcessIsStartedAndStoppedPolitely(t *testing.T) {
	p := testProcess(t)
	started, stopped := newLines(), newLines()
	instance, err := p.Start(t.Context(), shellSpec(t.TempDir(), `
		trap 'echo goodbye; exit' TERM
		echo "hello from $TUNNELER_WORKSPACE_NAME"; echo problem >&2; printf 'no line break'
		while :; do sleep 0.05; done`), started.out)
	require.NoError(t, err)
	require.Equal(t, Ref{"ws-1", "demo", 3}, instance.Ref())

	line := started.find(t, "hello from demo")
	require.Equal(t, events.LogInfo, line.Level)
	require.Equal(t, SourceProcess, line.Source)
	require.False(t, line.Partial)
	require.Equal(t, "problem", started.find(t, "problem").Text)
	require.True(t, started.find(t, "no line break").Partial)
	info, err := stat(instance.PID())
	require.NoError(t, err)
	require.Equal(t, instance.PID(), info.pgid)

	pid := instance.PID()
	require.NoError(t, p.Stop(t.Context(), "ws-1", stopped.out))
	await(t, instance.Exited())
	require.NoError(t, instance.Err())
	require.Zero(t, instance.PID())
	require.Contains(t, stopped.of(SourceProcess), "goodbye")
	require.Equal(t, []string{"stopping", "stopped"}, stopped.of(SourceProvisioner))
	_, err = stat(pid)
	require.ErrorIs(t, err, fs.ErrNotExist, "not even a zombie is left")
	_, err = p.records.load("ws-1")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestWhatIgnoresTheRequestToStopIsKilled(t *testing.T) {
	for name, c := range map[string]struct {
		grace     time.Duration
		impatient bool
		want      string
	}{
		"when its grace is over":           {100 * time.Millisecond, false, "did not stop within 100ms and is killed"},
		"at once when nobody waits for it": {time.Hour, true, "is killed: nobody waits for it to stop"},
	} {
		t.Run(name, func(t *testing.T) {
			p := testProcess(t, func(cfg *Config) { cfg.Grace = c.grace })
			started, stopped := newLines(), newLines()
			instance, err := p.Start(t.Context(), shellSpec(t.TempDir(), `trap '' TERM; echo up; while :; do sleep 1; done`), started.out)
			require.NoError(t, err)
			started.find(t, "up")
			pid := instance.PID()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.impatient {
				cancel()
			}
			require.NoError(t, p.Stop(ctx, "ws-1", stopped.out))
			require.Equal(t, events.LogWarn, stopped.find(t, c.want).Level)
			requireGone(t, pid)
		})
	}
}

func TestTheShutdownScriptsTimeIsAddedToTheGrace(t *testing.T) {
	p := testProcess(t, func(cfg *Config) { cfg.Grace = 50 * time.Millisecond })
	spec := shellSpec(t.TempDir(), `trap '' TERM; echo up; while :; do sleep 1; done`)
	spec.Template.ShutdownScript = &template.ShutdownScript{Run: "true", Timeout: template.Duration(100 * time.Millisecond)}
	out := newLines()
	_, err := p.Start(t.Context(), spec, out.out)
	require.NoError(t, err)
	out.find(t, "up")
	require.NoError(t, p.Stop(t.Context(), "ws-1", out.out))
	out.find(t, "did not stop within 150ms and is killed")
}

func TestTheWholeGroupIsAskedAndWaitedFor(t *testing.T) {
	p := testProcess(t)
	started, stopped := newLines(), newLines()
	// The shell that leads the group ends at once; what it ran takes its time.
	_, err := p.Start(t.Context(), shellSpec(t.TempDir(), `
		sh -c 'trap "sleep 0.3; echo inner is done; exit" TERM; echo up; while :; do sleep 0.05; done'
		echo never`), started.out)
	require.NoError(t, err)
	started.find(t, "up")
	require.NoError(t, p.Stop(t.Context(), "ws-1", stopped.out))
	require.Contains(t, stopped.of(SourceProcess), "inner is done")
	require.NotContains(t, started.of(SourceProcess), "never")
}

func TestAProcessThatEndsOnProbationEndsTheInstance(t *testing.T) {
	exits := make(chan Exit, 1)
	p := testProcess(t, func(cfg *Config) { cfg.OnExit = func(e Exit) { exits <- e } })
	out := newLines()
	instance, err := p.Start(t.Context(), shellSpec(t.TempDir(), `
		sleep 1000 &
		for i in 1 2 3 4 5 6 7 8 9 10 11; do echo line $i; done
		echo "child $!"; exit 7`), out.out)
	require.NoError(t, err)
	await(t, instance.Exited())

	var exit *ExitError
	require.ErrorAs(t, instance.Err(), &exit)
	require.Equal(t, Status{Known: true, Code: 7}, exit.Status)
	require.Len(t, exit.Tail, tailLines)
	require.Equal(t, "line 3", exit.Tail[0])
	require.ErrorContains(t, exit, "the process of workspace demo exited with status 7: line 3 | line 4")
	reported := <-exits
	require.Equal(t, Exit{Ref: instance.Ref(), Err: exit}, reported)

	child, err := strconv.Atoi(strings.TrimPrefix(out.find(t, "child").Text, "child "))
	require.NoError(t, err)
	requireGone(t, child)
	_, err = p.records.load("ws-1")
	require.ErrorIs(t, err, fs.ErrNotExist)

	// The workspace can be started anew as soon as its end is known.
	again, err := p.Start(t.Context(), shellSpec(t.TempDir(), `kill -11 $$`), nil)
	require.NoError(t, err)
	require.NotSame(t, instance, again)
	await(t, again.Exited())
	require.EqualError(t, again.Err(), "the process of workspace demo was ended by signal 11 (segmentation fault)")
}

func TestAnEstablishedProcessThatIsKilledIsStartedAgain(t *testing.T) {
	exits, restarts := make(chan Exit, 1), make(chan Restart, 1)
	p := testProcess(t, func(cfg *Config) {
		cfg.OnExit = func(e Exit) { exits <- e }
		cfg.OnRestart = func(r Restart) { restarts <- r }
	})
	out := newLines()
	instance, err := p.Start(t.Context(), shellSpec(t.TempDir(), `echo "up $$"; exec sleep 1000`), out.out)
	require.NoError(t, err)
	instance.Established()
	instance.Established()
	first := instance.PID()
	out.find(t, fmt.Sprintf("up %d", first))
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))

	exit := <-exits
	require.Equal(t, syscall.SIGKILL, exit.Err.Status.Signal)
	require.Equal(t, time.Second, exit.RestartIn)
	restart := <-restarts
	require.Equal(t, 1, restart.Attempt)
	require.Equal(t, instance.PID(), restart.PID)
	require.NotEqual(t, first, restart.PID)
	out.find(t, fmt.Sprintf("up %d", restart.PID))
	rec, err := p.records.load("ws-1")
	require.NoError(t, err)
	require.Equal(t, restart.PID, rec.Process.PID)
	require.NoError(t, p.Stop(t.Context(), "ws-1", nil))
	requireGone(t, restart.PID)
}

func TestStoppingWhatDoesNotRunIsNoError(t *testing.T) {
	p := testProcess(t)
	require.NoError(t, p.Stop(t.Context(), "ws-1", nil))
	var spec *SpecError
	require.ErrorAs(t, p.Stop(t.Context(), "../ws", nil), &spec)
	require.NoError(t, p.Close())
	require.ErrorIs(t, p.Stop(t.Context(), "ws-1", nil), ErrClosed)
	_, err := p.Start(t.Context(), shellSpec(t.TempDir(), "true"), nil)
	require.ErrorIs(t, err, ErrClosed)
	_, err = p.Recover(t.Context(), nil)
	require.ErrorIs(t, err, ErrClosed)
}

func TestStartsAndStopsAtTheSameTimeLeaveNothing(t *testing.T) {
	p := testProcess(t)
	dir := t.TempDir()
	var group errgroup.Group
	for range 4 {
		group.Go(func() error {
			for range 8 {
				spec := shellSpec(dir, `sleep 1000 & exec sleep 1000`)
				spec.Build = rand.Int64N(2) + 1
				if rand.IntN(2) == 0 {
					if err := p.Stop(context.Background(), spec.WorkspaceID, nil); err != nil {
						return err
					}
					continue
				}
				instance, err := p.Start(context.Background(), spec, nil)
				if _, busy := errors.AsType[*BusyError](err); busy {
					continue
				}
				if err != nil {
					return err
				}
				instance.Established()
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	require.NoError(t, p.Stop(t.Context(), "ws-1", nil))
	requireNothingLeft(t, p.owner)
	require.Empty(t, p.locks.locks)
}

func TestTheNoneProvisionerLeavesTheAgentToOthers(t *testing.T) {
	out := newLines()
	instance, err := None{}.Start(t.Context(), shellSpec(t.TempDir(), ""), out.out)
	require.NoError(t, err)
	out.find(t, "the agent of this workspace is started by someone else")
	instance.Established()
	require.Zero(t, instance.PID())
	require.NoError(t, instance.Err())
	require.Nil(t, instance.Exited())
	require.NoError(t, None{}.Stop(t.Context(), "ws-1", out.out))
	found, err := None{}.Recover(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, found)
	require.NoError(t, None{}.Close())
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = None{}.Start(canceled, Spec{}, nil)
	require.ErrorIs(t, err, context.Canceled)
}

// testBinary starts this binary again in a role.
func testBinary(t testing.TB, as string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Args = append([]string{os.Args[0]}, args...)
	cmd.Env = append(os.Environ(), role+"="+as)
	cmd.Stderr = os.Stderr
	return cmd
}
