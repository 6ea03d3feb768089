package store

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"go.uber.org/zap"
)

// natsLog passes the embedded server's lines on to zap, where a server inside
// another program belongs: its notices are debug lines. It keeps the last
// complaints, because the server reports a failed start in no other way.
type natsLog struct {
	log *zap.Logger

	mu         sync.Mutex
	complaints []string
}

const keptComplaints = 8

func (l *natsLog) complain(format string, v []any) string {
	line := strings.TrimSpace(fmt.Sprintf(format, v...))
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.complaints) == keptComplaints {
		l.complaints = l.complaints[1:]
	}
	l.complaints = append(l.complaints, line)
	return line
}

// complained returns the last complaints as one error, never nil.
func (l *natsLog) complained() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.complaints) == 0 {
		return errors.New("the embedded server gave no reason")
	}
	return errors.New(strings.Join(l.complaints, "; "))
}

func (l *natsLog) Noticef(format string, v ...any) { l.Debugf(format, v...) }
func (l *natsLog) Warnf(format string, v ...any)   { l.log.Warn(l.complain(format, v)) }
func (l *natsLog) Errorf(format string, v ...any)  { l.log.Error(l.complain(format, v)) }

// Fatalf only reports: the server returns from Start after it.
func (l *natsLog) Fatalf(format string, v ...any) { l.log.Error(l.complain(format, v)) }

func (l *natsLog) Debugf(format string, v ...any) {
	if l.log.Core().Enabled(zap.DebugLevel) {
		l.log.Debug(strings.TrimSpace(fmt.Sprintf(format, v...)))
	}
}

func (l *natsLog) Tracef(format string, v ...any) { l.Debugf(format, v...) }
