package events

import (
	"errors"
	"time"
)

// timed is a message that carries times. The decoders bring them all to UTC.
type timed interface{ times() []*time.Time }

func (m *TimeRequest) times() []*time.Time { return []*time.Time{&m.ClientTransmit} }

func (m *TimeResponse) times() []*time.Time {
	return []*time.Time{&m.ClientTransmit, &m.ServerReceive, &m.ServerTransmit}
}

func (m *AgentLifecycle) times() []*time.Time { return []*time.Time{&m.ChangedAt} }

func (m *AgentLogs) times() []*time.Time {
	all := make([]*time.Time, len(m.Entries))
	for i := range m.Entries {
		all[i] = &m.Entries[i].CreatedAt
	}
	return all
}

func (m *ConnectionRequest) times() []*time.Time { return []*time.Time{&m.Expires} }

func (l *Log) times() []*time.Time { return []*time.Time{&l.CreatedAt} }

var errTime = errors.New("a time is outside of the years 0 to 9999")

// normalise brings a decoded message's times to UTC. It refuses a time that can
// be read but not be written again: with an odd zone there are such, and who
// has to echo or to store one must not fail on it.
func normalise(m timed) error {
	for _, t := range m.times() {
		*t = t.UTC()
		if year := t.Year(); year < 0 || year > 9999 {
			return errTime
		}
	}
	return nil
}
