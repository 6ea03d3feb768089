package provision

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/tunneler/tunneler/events"
)

const (
	// tailLines is how many last lines of output an ExitError holds.
	tailLines = 10
	// tailWidth is how much of each, in bytes.
	tailWidth = 300
)

// A sink takes an instance's lines to whoever wants them at the moment, one at a time.
type sink struct {
	mu   sync.Mutex
	out  func(Line)
	last []string
}

// redirect sends all further lines to out.
func (s *sink) redirect(out func(Line)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = out
}

// say passes on a line of the provisioner's own.
func (s *sink) say(level events.LogLevel, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out != nil {
		s.out(Line{Time: time.Now(), Level: level, Source: SourceProvisioner, Text: fmt.Sprintf(format, args...)})
	}
}

// process passes on a line of a process.
func (s *sink) process(text string, partial bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.TrimSpace(text) != "" {
		if len(s.last) == tailLines {
			s.last = append(s.last[:0], s.last[1:]...)
		}
		s.last = append(s.last, strings.ToValidUTF8(text[:min(len(text), tailWidth)], ""))
	}
	if s.out != nil {
		s.out(Line{Time: time.Now(), Level: events.LogInfo, Source: SourceProcess, Text: text, Partial: partial})
	}
}

// takeLast returns the last lines of the processes' output, and forgets them.
func (s *sink) takeLast() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.last
	s.last = nil
	return last
}
