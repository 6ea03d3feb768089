package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
)

// shutdownGrace is how long requests in flight may take to end once Serve is told to stop.
const shutdownGrace = 5 * time.Second

// Serve runs the service on a listener, which it closes, until ctx is done. Then it ends WebSockets and streams, lets
// other requests end within 5 seconds, and returns nil once nothing of it is left.
func Serve(ctx context.Context, ln net.Listener, cfg Config) error {
	h := New(cfg)
	errorLog, err := zap.NewStdLogAt(h.log.Named("http"), zap.WarnLevel)
	if err != nil {
		return fmt.Errorf("serve the demo: %w", err)
	}
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          errorLog,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()

	select {
	case err := <-served:
		_ = server.Close() // what Serve had accepted before it failed
		h.Close()
		return fmt.Errorf("serve the demo: %w", err)
	case <-ctx.Done():
	}
	closed := make(chan struct{})
	go func() { defer close(closed); h.Close() }()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close() // the grace is over
	}
	<-closed
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the demo: %w", err)
	}
	return nil
}

// Listen listens at "HOST:PORT" or "unix:PATH". The directory of a socket is made if it does not exist (0700), the
// socket is for its owner alone (0600), and one that a dead process has left is replaced. A socket or file that is in
// use, or is no socket, stays as it is: the error then Is fs.ErrExist.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		return lc.Listen(ctx, "tcp", address)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	ln, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}

// removeStale removes a socket that nobody listens on.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is not a socket: %w", path, fs.ErrExist)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("another process listens on %s: %w", path, fs.ErrExist)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
