package forward

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func acceptError(errno syscall.Errno) error {
	return &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", errno)}
}

func TestAListenerSurvivesAnAcceptThatFails(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.EPERM, syscall.EPROTO, syscall.ENETDOWN} {
		t.Run(errno.Error(), func(t *testing.T) {
			bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
				a.Attach(tunnel)
				for range 20 {
					l.fail(acceptError(errno))
				}
				client := l.connect()
				write(t, <-tunnel.far, "x")
				read(t, client, "x")
			})
		})
	}
}

func TestThePauseAfterAFailedAcceptGrowsToASecondAndStartsAnew(t *testing.T) {
	var p problems
	bubble(t, Options{OnProblem: p.add}, func(t *testing.T, a *App, l *fakeListener, tunnel *pipeTunnel) {
		a.Attach(tunnel)
		pauses := func(n int) []time.Duration {
			var all []time.Duration
			for range n {
				l.fail(acceptError(syscall.EMFILE))
				begin := time.Now()
				l.fail(acceptError(syscall.ECONNABORTED)) // taken once the pause is over
				all = append(all, time.Since(begin))
			}
			return all
		}
		// Every second error is not looked at, so that the pauses grow fourfold.
		ms := time.Millisecond
		require.Equal(t, []time.Duration{5 * ms, 20 * ms, 80 * ms, 320 * ms, time.Second, time.Second}, pauses(6))
		l.connect()
		require.Equal(t, []time.Duration{5 * ms}, pauses(1))
		require.Equal(t, []string{
			"cannot accept connections on 127.0.0.1:8080 for now: accept tcp: accept4: too many open files",
			"cannot accept connections on 127.0.0.1:8080 for now: accept tcp: accept4: too many open files",
		}, p.sentences(), "once each time it begins")
	})
}

func TestCloseDoesNotWaitForThePauseAfterAFailedAccept(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, a *App, l *fakeListener, _ *pipeTunnel) {
		for range 10 {
			l.fail(acceptError(syscall.EMFILE))
		}
		synctest.Wait()
		begin := time.Now()
		require.NoError(t, a.Close())
		require.Zero(t, time.Since(begin))
	})
}

func TestAnAppWhoseListenersHaveAllDiedReportsItsDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p problems
		var listeners []*fakeListener
		tunnel := newPipeTunnel()
		a, err := Start(t.Context(), Options{
			Forwards:  []Spec{{Local: 8080, RemotePort: 80}},
			OnProblem: p.add,
			listen: func(context.Context, string, string) (net.Listener, error) {
				listeners = append(listeners, newFakeListener(8080+len(listeners)))
				return listeners[len(listeners)-1], nil
			},
		})
		require.NoError(t, err)
		defer a.Abort()
		a.Attach(tunnel)
		require.Len(t, listeners, 2)
		client := listeners[0].connect()
		far := <-tunnel.far

		listeners[0].fail(acceptError(syscall.EBADF))
		synctest.Wait()
		select {
		case <-a.Done():
			require.Fail(t, "it has ended though a listener is left")
		default:
		}
		listeners[1].fail(acceptError(syscall.EINVAL))
		err = a.Wait()
		var dead *DeadError
		require.ErrorAs(t, err, &dead)
		require.Len(t, dead.Causes, 2)
		require.ErrorIs(t, err, syscall.EBADF)
		require.ErrorIs(t, err, syscall.EINVAL)
		require.Contains(t, err.Error(), "no local port is left to listen on: listen on 127.0.0.1:8080: ")
		require.Equal(t, []string{
			"no longer listening on 127.0.0.1:8080: accept tcp: accept4: bad file descriptor",
			"no longer listening on 127.0.0.1:8081: accept tcp: accept4: invalid argument",
		}, p.sentences())

		write(t, far, "x")
		read(t, client, "x") // what is in flight goes on
		require.NoError(t, a.Close())
		require.ErrorAs(t, a.Wait(), &dead, "closing does not change what it died of")
	})
}

func TestDeathIsWhatNoAcceptCanCureAndNothingElse(t *testing.T) {
	for _, err := range []error{net.ErrClosed, syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK, syscall.EOPNOTSUPP} {
		require.True(t, listenerDead(err), err)
	}
	for _, err := range []error{syscall.EMFILE, syscall.ECONNABORTED, errors.New("unknown")} {
		require.False(t, listenerDead(err), err)
	}
}
