package forward

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAConnectionWaitsForATunnel(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		client := l.connect()
		synctest.Wait()
		require.EqualValues(t, 1, a.Stats().Waiting)
		time.Sleep(DefaultAttachTimeout - time.Second)
		synctest.Wait()
		require.EqualValues(t, 1, a.Stats().Waiting)
		a.Attach(tunnel)
		far := <-tunnel.far
		write(t, far, "hello")
		read(t, client, "hello")
		require.Zero(t, a.Stats().Waiting)
	})
}

func TestAConnectionDoesNotWaitForEver(t *testing.T) {
	bubble(t, Options{AttachTimeout: 7 * time.Second}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
		begin := time.Now()
		_, err := l.connect().Read(make([]byte, 1))
		require.Equal(t, errReset, err)
		require.Equal(t, 7*time.Second, time.Since(begin))
		synctest.Wait()
		require.Equal(t, map[Reason]uint64{ReasonNoTunnel: 1}, a.Stats().Failed)
		require.Zero(t, a.Stats().Waiting)
	})
}

func TestANegativeAttachTimeoutIsNotToWait(t *testing.T) {
	bubble(t, Options{AttachTimeout: -1}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
		begin := time.Now()
		_, err := l.connect().Read(make([]byte, 1))
		require.Equal(t, errReset, err)
		require.Zero(t, time.Since(begin))
	})
}

func TestTheTimeThatAConnectionWaitsIsCountedOverSeveralTunnels(t *testing.T) {
	bubble(t, Options{AttachTimeout: 10 * time.Second}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
		begin := time.Now()
		client := l.connect()
		for range 3 {
			synctest.Wait()
			time.Sleep(3 * time.Second)
			a.Attach(stuck)
			synctest.Wait()
			a.Detach()
		}
		_, err := client.Read(make([]byte, 1))
		require.Equal(t, errReset, err)
		require.Equal(t, 10*time.Second, time.Since(begin))
	})
}

// stuck is a tunnel whose dials never come to an end by themselves.
var stuck = dialFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
})

func TestMoreConnectionsThanMayWaitAreRefused(t *testing.T) {
	var p problems
	bubble(t, Options{MaxWaiting: 3, OnProblem: p.add}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		var clients []*pipeConn
		for range 3 {
			clients = append(clients, l.connect())
		}
		synctest.Wait()
		for range 2 {
			_, err := l.connect().Read(make([]byte, 1))
			require.Equal(t, errReset, err)
		}
		synctest.Wait()
		stats := a.Stats()
		require.EqualValues(t, 3, stats.Waiting)
		require.EqualValues(t, 2, stats.Refused)
		require.Equal(t, []string{"3 connections wait for the tunnel, further ones are refused until it is back"}, p.sentences())
		require.ErrorIs(t, p.all[0].Err, ErrTooManyWaiting)

		a.Attach(tunnel)
		for _, client := range clients {
			write(t, <-tunnel.far, "x")
			_ = client
		}
		for _, client := range clients {
			read(t, client, "x")
		}
		require.Zero(t, a.Stats().Waiting)
	})
}

func TestANegativeMaxWaitingLetsNoneWait(t *testing.T) {
	bubble(t, Options{MaxWaiting: -1}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
		_, err := l.connect().Read(make([]byte, 1))
		require.Equal(t, errReset, err)
		synctest.Wait()
		require.EqualValues(t, 1, a.Stats().Refused)
	})
}

func TestDetachResetsWhatIsInFlightAndKeepsListening(t *testing.T) {
	far := newFarSide(t)
	a := start(t, far, Options{})
	client := connect(t, a)
	server := far.accept(t)
	write(t, server, "half an ans")
	read(t, client, "half an ans")
	a.Detach()
	_, err := client.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	_, err = server.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.Equal(t, map[Reason]uint64{ReasonTunnelLost: 1}, settled(t, a).Failed)

	client = connect(t, a)
	write(t, client, "patience")
	a.Attach(far)
	server = far.accept(t)
	read(t, server, "patience")
}

func TestDetachDoesNotWaitForAConnectionThatIsStuck(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
		release := make(chan struct{})
		a.Attach(dialFunc(func(context.Context, string, string) (net.Conn, error) {
			return &stuckConn{release: release}, nil
		}))
		client := l.connect()
		synctest.Wait()
		a.Detach()
		_, err := client.Read(make([]byte, 1))
		require.Equal(t, errReset, err, "the client is told even so")
		close(release)
	})
}

func TestDetachEndsAConnectionThatTheFarSideDoesNotRead(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		a.Attach(tunnel)
		client := l.connect()
		far := <-tunnel.far
		write(t, client, "nobody reads this")
		synctest.Wait()
		a.Detach()
		synctest.Wait()
		require.Equal(t, map[Reason]uint64{ReasonTunnelLost: 1}, a.Stats().Failed)
		_, err := far.Read(make([]byte, 1))
		require.Equal(t, errReset, err)
	})
}

// stuckConn is a tunnel connection of which nothing returns until released.
type stuckConn struct {
	net.Conn
	release chan struct{}
}

func (c *stuckConn) Read([]byte) (int, error)    { <-c.release; return 0, errGone }
func (c *stuckConn) Write([]byte) (int, error)   { <-c.release; return 0, errGone }
func (c *stuckConn) SetDeadline(time.Time) error { <-c.release; return nil }
func (c *stuckConn) Close() error                { <-c.release; return nil }

func TestAttachReplacesATunnelAndCutsItsConnections(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, first *pipeTunnel) {
		second := newPipeTunnel()
		a.Attach(first)
		old := l.connect()
		<-first.far
		synctest.Wait()
		a.Attach(second)
		_, err := old.Read(make([]byte, 1))
		require.Equal(t, errReset, err)
		client := l.connect()
		write(t, <-second.far, "x")
		read(t, client, "x")
		require.Empty(t, first.far)
	})
}

func TestAConnectionWhoseDialIsCutShortWaitsForTheNextTunnel(t *testing.T) {
	for _, test := range []struct {
		name   string
		dialer Dialer
	}{
		{"the dial fails", stuck},
		{"the dial succeeds all the same", dialFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			near, _ := newPipe()
			return near, nil
		})},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
				a.Attach(test.dialer)
				client := l.connect()
				synctest.Wait()
				a.Detach()
				synctest.Wait()
				require.EqualValues(t, 1, a.Stats().Waiting)
				a.Attach(tunnel)
				write(t, <-tunnel.far, "x")
				read(t, client, "x")
			})
		})
	}
}

func TestADialThatTakesTooLongIsGivenUp(t *testing.T) {
	var p problems
	bubble(t, Options{DialTimeout: 4 * time.Second, OnProblem: p.add}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
		a.Attach(stuck)
		begin := time.Now()
		_, err := l.connect().Read(make([]byte, 1))
		require.Equal(t, errReset, err)
		require.Equal(t, 4*time.Second, time.Since(begin))
		synctest.Wait()
		require.Equal(t, []string{"cannot reach localhost:3000 from the workspace: no answer within 4s"}, p.sentences())
		require.ErrorIs(t, p.all[0].Err, ErrDialTimeout)
		require.EqualValues(t, 1, a.Stats().Failed[ReasonUnreachable])
	})
}

func isGone(err error) bool { return errors.Is(err, errGone) }

func TestADialThatSaysThatTheTunnelIsGoneWaitsForTheNextTunnel(t *testing.T) {
	var p problems
	bubble(t, Options{Gone: isGone, OnProblem: p.add}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		dials := 0
		a.Attach(dialFunc(func(context.Context, string, string) (net.Conn, error) {
			dials++
			return nil, errGone
		}))
		client := l.connect()
		synctest.Wait()
		l.connect()
		synctest.Wait()
		require.Equal(t, 1, dials, "the second connection waits without being dialled")
		require.EqualValues(t, 2, a.Stats().Waiting)
		a.Attach(tunnel)
		write(t, <-tunnel.far, "x")
		write(t, <-tunnel.far, "x")
		read(t, client, "x")
		require.Empty(t, p.sentences())
	})
}

func TestAReadThatSaysThatTheTunnelIsGoneKeepsNewConnectionsFromIt(t *testing.T) {
	var p problems
	explainAll := func(error) (string, bool) { return "the tunnel is gone", true }
	bubble(t, Options{Gone: isGone, Explain: explainAll, OnProblem: p.add}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		a.Attach(tunnel)
		first := l.connect()
		firstFar := <-tunnel.far
		second := l.connect()
		secondFar := <-tunnel.far
		firstFar.failWrite(errGone)
		_, err := first.Read(make([]byte, 1))
		require.Equal(t, errReset, err)
		third := l.connect()
		synctest.Wait()
		stats := a.Stats()
		require.Equal(t, map[Reason]uint64{ReasonTunnelLost: 1}, stats.Failed)
		require.Empty(t, p.sentences(), "a lost tunnel is no fault of the target")
		require.EqualValues(t, 1, stats.Waiting)

		// What is in flight may finish: the tunnel could be draining.
		write(t, secondFar, "x")
		read(t, second, "x")
		a.Detach()
		_, err = second.Read(make([]byte, 1))
		require.Equal(t, errReset, err)

		a.Attach(tunnel)
		write(t, <-tunnel.far, "x")
		read(t, third, "x")
	})
}

func TestConnectionsThatWaitBesideARetiredTunnelEndWithClose(t *testing.T) {
	bubble(t, Options{Gone: isGone, DrainTimeout: time.Hour}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
		a.Attach(dialFunc(func(context.Context, string, string) (net.Conn, error) { return nil, errGone }))
		client := l.connect()
		synctest.Wait()
		begin := time.Now()
		require.NoError(t, a.Close())
		require.Zero(t, time.Since(begin))
		_, err := client.Read(make([]byte, 1))
		require.Equal(t, errReset, err)
	})
}

// A late answer of a tunnel that was replaced must not take its successor away.
func TestATunnelThatIsGoneTakesNoOtherWithIt(t *testing.T) {
	bubble(t, Options{Gone: isGone}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		fail := make(chan struct{})
		a.Attach(dialFunc(func(context.Context, string, string) (net.Conn, error) {
			<-fail
			return nil, errGone
		}))
		late := l.connect()
		synctest.Wait()
		a.Attach(tunnel)
		client := l.connect()
		far := <-tunnel.far
		close(fail)
		write(t, <-tunnel.far, "late")
		read(t, late, "late")
		write(t, far, "x")
		read(t, client, "x")
	})
}

func TestMoreConnectionsThanTheLimitAreRefused(t *testing.T) {
	var p problems
	bubble(t, Options{MaxConns: 2, OnProblem: p.add}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		a.Attach(tunnel)
		first := l.connect()
		l.connect()
		synctest.Wait()
		for range 3 {
			_, err := l.connect().Read(make([]byte, 1))
			require.Equal(t, errReset, err)
		}
		stats := a.Stats()
		require.EqualValues(t, 3, stats.Refused)
		require.EqualValues(t, 2, stats.Active)
		requireBalance(t, stats)
		require.Equal(t, []string{"2 connections are open, further ones are refused"}, p.sentences())
		require.ErrorIs(t, p.all[0].Err, ErrTooManyConns)

		reset(first)
		synctest.Wait()
		client := l.connect()
		<-tunnel.far
		<-tunnel.far
		write(t, <-tunnel.far, "x")
		read(t, client, "x")
	})
}
