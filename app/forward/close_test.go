package forward

import (
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCloseStopsListeningAndResetsConnectionsAtOnceByDefault(t *testing.T) {
	far := newFarSide(t)
	a := start(t, far, Options{})
	client := connect(t, a)
	server := far.accept(t)
	write(t, server, "x")
	read(t, client, "x")
	require.NoError(t, a.Close())
	_, err := client.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	_, err = server.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	_, err = net.Dial("tcp", a.Forwards()[0].LocalURLHost)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.NoError(t, a.Wait())
	require.Equal(t, map[Reason]uint64{ReasonClosed: 1}, a.Stats().Failed)
}

func TestCloseLetsConnectionsFinishWithinTheDrainTimeout(t *testing.T) {
	bubble(t, Options{DrainTimeout: 10 * time.Second}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		a.Attach(tunnel)
		quick := l.connect()
		quickFar := <-tunnel.far
		slow := l.connect()
		slowFar := <-tunnel.far
		synctest.Wait()
		begin := time.Now()
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_ = a.Close()
		}()
		synctest.Wait()
		write(t, quickFar, "whole answer")
		read(t, quick, "whole answer")
		_, _ = quickFar.Close(), quick.Close()
		synctest.Wait()
		require.EqualValues(t, 1, a.Stats().Completed)
		_, err := slow.Read(make([]byte, 1))
		require.Equal(t, errReset, err)
		<-closed
		require.Equal(t, 10*time.Second, time.Since(begin))
		require.Equal(t, map[Reason]uint64{ReasonClosed: 1}, a.Stats().Failed)
		_, err = slowFar.Read(make([]byte, 1))
		require.Equal(t, errReset, err)
	})
}

func TestCloseReturnsAsSoonAsNothingIsInFlight(t *testing.T) {
	bubble(t, Options{DrainTimeout: time.Hour}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		a.Attach(tunnel)
		client := l.connect()
		far := <-tunnel.far
		_, _ = far.Close(), client.Close()
		begin := time.Now()
		require.NoError(t, a.Close())
		require.Zero(t, time.Since(begin))
	})
}

func TestConnectionsThatWaitForATunnelAreNotDrained(t *testing.T) {
	bubble(t, Options{DrainTimeout: time.Hour, AttachTimeout: time.Hour}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
		client := l.connect()
		synctest.Wait()
		begin := time.Now()
		require.NoError(t, a.Close())
		require.Zero(t, time.Since(begin))
		_, err := client.Read(make([]byte, 1))
		require.Equal(t, errReset, err)
		require.Equal(t, map[Reason]uint64{ReasonClosed: 1}, a.Stats().Failed)
	})
}

func TestAbortCutsADrainShort(t *testing.T) {
	bubble(t, Options{DrainTimeout: time.Hour}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		a.Attach(tunnel)
		client := l.connect()
		<-tunnel.far
		synctest.Wait()
		begin := time.Now()
		go func() { _ = a.Close() }()
		synctest.Wait()
		require.EqualValues(t, 1, a.Stats().Active)
		a.Abort()
		require.Zero(t, time.Since(begin))
		_, err := client.Read(make([]byte, 1))
		require.Equal(t, errReset, err)
	})
}

func TestADetachDuringADrainEndsIt(t *testing.T) {
	bubble(t, Options{DrainTimeout: time.Hour}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		a.Attach(tunnel)
		l.connect()
		<-tunnel.far
		synctest.Wait()
		begin := time.Now()
		go func() { _ = a.Close() }()
		synctest.Wait()
		a.Detach()
		a.Attach(tunnel) // too late, nothing is taken any more
		require.NoError(t, a.Wait())
		require.Zero(t, time.Since(begin))
		require.Equal(t, map[Reason]uint64{ReasonTunnelLost: 1}, a.Stats().Failed)
	})
}

func TestADialUnderWayIsCutByClose(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
		a.Attach(stuck)
		client := l.connect()
		synctest.Wait()
		require.NoError(t, a.Close())
		_, err := client.Read(make([]byte, 1))
		require.Equal(t, errReset, err)
		require.Equal(t, map[Reason]uint64{ReasonClosed: 1}, a.Stats().Failed)
	})
}

func TestClosingAndAttachingMayBeDoneByManyAtOnceAndAgain(t *testing.T) {
	far := newFarSide(t)
	far.serve(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	a := start(t, far, Options{DrainTimeout: 50 * time.Millisecond})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				if c, err := net.Dial("tcp", a.Forwards()[0].LocalURLHost); err == nil {
					_, _ = c.Write([]byte("x"))
					_, _ = c.Read(make([]byte, 1))
					_ = c.Close()
				}
			}
		})
		wg.Go(func() {
			for range 50 {
				a.Detach()
				a.Attach(far)
				requireBalance(t, a.Stats())
			}
			if i%2 == 0 {
				_ = a.Close()
			} else {
				a.Abort()
			}
		})
	}
	wg.Wait()
	require.NoError(t, a.Wait())
	a.Attach(far)
	a.Detach()
	require.Zero(t, a.Stats().Active)
	requireBalance(t, a.Stats())
}

func TestAReasonHasAName(t *testing.T) {
	seen := make(map[string]bool)
	for r := range numReasons {
		name, err := r.MarshalText()
		require.NoError(t, err)
		require.Regexp(t, "^[a-z_]+$", string(name))
		require.False(t, seen[string(name)])
		seen[string(name)] = true
	}
	require.Equal(t, fmt.Sprintf("Reason(%d)", numReasons), numReasons.String())
}
