package store

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"
)

// Limits of the embedded server, in bytes.
const (
	maxPayload   = 1 << 20
	maxJSMemory  = 32 << 20  // JetStream's memory storage: the state of watches
	maxJSStorage = 256 << 30 // a ceiling for everything on disk; logs are bounded by Options.LogBytes, long before
)

// startServer starts a JetStream server in this process that no one else can
// reach. It returns when the streams on disk are loaded.
func startServer(ctx context.Context, dir string, noSync bool, log *zap.Logger) (*server.Server, *natsLog, error) {
	logger := newNatsLog(log)
	srv, err := server.NewServer(&server.Options{
		ServerName:             "tunneler",
		DontListen:             true,
		NoSigs:                 true,
		JetStream:              true,
		StoreDir:               dir,
		SyncAlways:             !noSync,
		JetStreamMaxMemory:     maxJSMemory,
		JetStreamMaxStore:      maxJSStorage,
		MaxPayload:             maxPayload,
		DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot start the embedded server: %w", err)
	}
	srv.SetLoggerV2(logger, log.Core().Enabled(zap.DebugLevel), false, false)
	if err := guard(dir, log, srv.Start); err != nil {
		// It panicked, with locks held as like as not: stopping it could block for ever.
		return nil, nil, err
	}
	switch {
	case !srv.JetStreamEnabled():
		err = fmt.Errorf("cannot start the embedded server: %w", logger.reason(keptComplaints))
	case ctx.Err() != nil:
		err = ctx.Err()
	default:
		return srv, logger, nil
	}
	stopServer(srv)
	return nil, nil, err
}

func stopServer(srv *server.Server) {
	srv.Shutdown()
	srv.WaitForShutdown()
}

// guard turns a panic of f into a CorruptError: the server panics on some states
// of its files. (Those of its own goroutines are out of reach.)
func guard(dir string, log *zap.Logger, f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			log.Error("embedded server panicked", zap.Any("panic", r), zap.ByteString("stack", debug.Stack()))
			err = &CorruptError{What: dir, Cause: fmt.Errorf("the embedded server panicked: %v", r)}
		}
	}()
	f()
	return nil
}
