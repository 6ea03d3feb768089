package store

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"go.uber.org/zap"
)

// natsLog passes the embedded server's lines on to zap, where a server inside
// another program belongs: its notices are debug lines. It also listens to them,
// because the log is the only place where the server reports a start that failed
// or a disk that refused a write. What the lines say is not looked at. A nil
// *natsLog, for an external server, has heard nothing.
type natsLog struct {
	log *zap.Logger

	mu         sync.Mutex
	complaints []string      // the first warnings and errors since the start, or since it was completed
	errors     int           // since then
	nextError  chan struct{} // closed by the next error
}

const keptComplaints = 8

func newNatsLog(log *zap.Logger) *natsLog {
	// Who called is this file, which helps nobody.
	log = log.Named("nats").WithOptions(zap.WithCaller(false), zap.AddStacktrace(zap.FatalLevel))
	return &natsLog{log: log, nextError: make(chan struct{})}
}

func (l *natsLog) complain(isError bool, format string, v []any) string {
	line := strings.TrimSpace(fmt.Sprintf(format, v...))
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.complaints) < keptComplaints {
		l.complaints = append(l.complaints, line)
	}
	if isError {
		l.errors++
		close(l.nextError)
		l.nextError = make(chan struct{})
	}
	return line
}

// reason returns up to n of the complaints as one error, never nil.
func (l *natsLog) reason(n int) error {
	if l == nil {
		return errors.New("the server gave no reason")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.complaints) == 0 {
		return errors.New("the embedded server gave no reason")
	}
	return errors.New(strings.Join(l.complaints[:min(n, len(l.complaints))], "; "))
}

// started makes reason and any speak of what comes from now on.
func (l *natsLog) started() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complaints, l.errors = nil, 0
}

// next returns a channel that is closed by the next error.
func (l *natsLog) next() <-chan struct{} {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nextError
}

// any reports whether there was an error since the start.
func (l *natsLog) any() bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.errors > 0
}

func (l *natsLog) Noticef(format string, v ...any) { l.Debugf(format, v...) }
func (l *natsLog) Warnf(format string, v ...any)   { l.log.Warn(l.complain(false, format, v)) }
func (l *natsLog) Errorf(format string, v ...any)  { l.log.Error(l.complain(true, format, v)) }

// Fatalf only reports: the server returns from Start after it.
func (l *natsLog) Fatalf(format string, v ...any) { l.log.Error(l.complain(true, format, v)) }

func (l *natsLog) Debugf(format string, v ...any) {
	if l.log.Core().Enabled(zap.DebugLevel) {
		l.log.Debug(strings.TrimSpace(fmt.Sprintf(format, v...)))
	}
}

func (l *natsLog) Tracef(format string, v ...any) { l.Debugf(format, v...) }
