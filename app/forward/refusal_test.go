package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestADialThatFailsResetsTheClientAndIsReportedOnceUntilTheForwardWorks(t *testing.T) {
	far := newFarSide(t)
	var p problems
	listening := make(chan bool, 1)
	listening <- false
	a := start(t, dialFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
		up := <-listening
		listening <- up
		if !up {
			return nil, errRefused
		}
		return far.DialContext(ctx, network, address)
	}), Options{OnProblem: p.add})
	fails := func() { connectRefused(t, a) }
	const sentence = "cannot reach localhost:3000 from the workspace: fake: refused by the far side"

	fails()
	fails()
	require.Equal(t, []string{sentence}, p.sentences())

	<-listening
	listening <- true
	client := connect(t, a)
	server := far.accept(t)
	write(t, server, "here again")
	read(t, client, "here again")

	<-listening
	listening <- false
	fails()
	fails()
	require.Equal(t, []string{sentence, sentence}, p.sentences())
	require.ErrorIs(t, p.all[0].Err, errRefused)
	require.Equal(t, a.Forwards()[0], p.all[0].Forward)
	require.NoError(t, client.Close())
	require.NoError(t, server.Close())
	require.EqualValues(t, 4, settled(t, a).Failed[ReasonUnreachable])
}

// lazy is a tunnel connection whose refusal comes with the first Read, and
// whose writes may fail before that.
type lazy struct {
	*pipeConn
	refusal error
}

func (c *lazy) Read([]byte) (int, error) { return 0, c.refusal }

func explain(err error) (string, bool) {
	if errors.Is(err, errRefused) {
		return "nothing listens on port 3000 of the workspace", true
	}
	return "", false
}

func TestARefusalThatComesWithTheFirstReadIsOneLikeThatOfTheDial(t *testing.T) {
	var p problems
	bubble(t, Options{OnProblem: p.add, Explain: explain}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
		a.Attach(dialFunc(func(context.Context, string, string) (net.Conn, error) {
			near, _ := newPipe()
			return &lazy{near, fmt.Errorf("stream: %w", errRefused)}, nil
		}))
		for range 2 {
			_, err := l.connect().Read(make([]byte, 1))
			require.Equal(t, errReset, err)
		}
		synctest.Wait()
		require.Equal(t, []string{"nothing listens on port 3000 of the workspace"}, p.sentences())
		require.EqualValues(t, 2, a.Stats().Failed[ReasonUnreachable])
	})
}

func TestAnAnswerThatDoesNotComeInTimeAfterTheDialIsADialTimeout(t *testing.T) {
	var p problems
	bubble(t, Options{OnProblem: p.add, DialTimeout: 5 * time.Second}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
		a.Attach(dialFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
			near, _ := newPipe()
			return &unanswered{near, ctx}, nil
		}))
		begin := time.Now()
		_, err := l.connect().Read(make([]byte, 1))
		require.Equal(t, errReset, err)
		require.Equal(t, 5*time.Second, time.Since(begin))
		synctest.Wait()
		require.Equal(t, []string{"cannot reach localhost:3000 from the workspace: no answer within 5s"}, p.sentences())
		require.ErrorIs(t, p.all[0].Err, ErrDialTimeout)
		require.EqualValues(t, 1, a.Stats().Failed[ReasonUnreachable])
	})
}

// unanswered is a tunnel connection whose answer does not come before the
// dial's context ends.
type unanswered struct {
	*pipeConn
	dial context.Context
}

func (c *unanswered) Read([]byte) (int, error) {
	<-c.dial.Done()
	return 0, fmt.Errorf("stream: %w", context.Cause(c.dial))
}

func TestARefusalIsReportedEvenIfWritingFailsFirst(t *testing.T) {
	var p problems
	bubble(t, Options{OnProblem: p.add, Explain: explain}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
		refuse := make(chan struct{})
		a.Attach(dialFunc(func(context.Context, string, string) (net.Conn, error) {
			return &deaf{refuse: refuse}, nil
		}))
		client := l.connect()
		write(t, client, "hello")
		write(t, client, "still being read")
		synctest.Wait()
		require.EqualValues(t, 1, a.Stats().Active)
		close(refuse)
		_, err := client.Read(make([]byte, 1))
		require.Equal(t, errReset, err)
		synctest.Wait()
		require.Len(t, p.sentences(), 1)
		require.Equal(t, map[Reason]uint64{ReasonUnreachable: 1}, a.Stats().Failed)
	})
}

// deaf is a tunnel connection that fails every Write at once, and Read when
// told so.
type deaf struct {
	net.Conn
	refuse chan struct{}
}

func (c *deaf) Write([]byte) (int, error)   { return 0, errReset }
func (c *deaf) SetDeadline(time.Time) error { return nil }
func (c *deaf) Close() error                { return nil }
func (c *deaf) Read([]byte) (int, error) {
	<-c.refuse
	return 0, errRefused
}

func TestAnErrorAfterTheFirstByteIsNoRefusal(t *testing.T) {
	var p problems
	bubble(t, Options{OnProblem: p.add, Explain: explain}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		a.Attach(tunnel)
		client := l.connect()
		far := <-tunnel.far
		write(t, far, "x")
		read(t, client, "x")
		far.failWrite(errRefused)
		_, err := client.Read(make([]byte, 1))
		require.Equal(t, errReset, err)
		synctest.Wait()
		require.Empty(t, p.sentences())
		require.Equal(t, map[Reason]uint64{ReasonRemoteReset: 1}, a.Stats().Failed)
	})
}
