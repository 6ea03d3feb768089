package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// stopSignals are the signals by which a person or a supervisor asks for the
// end: Ctrl-C, kill, and a terminal that was closed.
var stopSignals = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}

// interruptible ends the context at the first of those signals; a second one
// then has its default effect.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, stopSignals...)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
