package tailnet

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

// pingsKept is how many unanswered pings are remembered. Pongs come in order,
// so an older one can only be answered after a silence in which the
// connection counted as degraded.
const pingsKept = 16

// monitor watches the peer's life: it is the one place that decides that the
// peer is degraded or lost.
type monitor struct {
	conn        *Conn
	conf        Health
	unreachable func(context.Context) bool
	// wake tells run that a pong has ended a degraded time.
	wake chan struct{}

	mu sync.Mutex
	// alive is when we last knew of a sign of life, and received the number
	// of packets that had come by then.
	alive    time.Time
	received uint64
	degraded bool
	probing  bool
	rtt      time.Duration
	seq      uint64
	sent     [pingsKept]time.Time // by sequence number modulo pingsKept
}

func newMonitor(c *Conn, conf Health, unreachable func(context.Context) bool) *monitor {
	return &monitor{
		conn:        c,
		conf:        conf.withDefaults(),
		unreachable: unreachable,
		wake:        make(chan struct{}, 1),
		alive:       time.Now(), // the handshake has just been completed
		received:    c.q.ConnectionStats().PacketsReceived,
	}
}

// run pings and judges until the connection ends or is given up.
func (m *monitor) run() {
	m.ping()
	nextPing := time.Now().Add(m.conf.next())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(min(time.Until(nextPing), time.Until(m.deadline())))
		select {
		case <-m.conn.q.Context().Done():
			return
		case <-m.wake:
		case <-timer.C:
		}
		silence := m.silence()
		if silence >= m.conf.lostAfter() {
			m.giveUp(ErrPeerSilent)
			return
		}
		if m.judge(silence) {
			m.report()
		}
		if now := time.Now(); !now.Before(nextPing) {
			m.ping()
			nextPing = now.Add(m.conf.next())
			if silence >= 2*m.conf.Interval {
				m.probe()
			}
		}
	}
}

// deadline is when silence becomes something worse.
func (m *monitor) deadline() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.degraded {
		return m.alive.Add(m.conf.lostAfter())
	}
	return m.alive.Add(m.conf.degradedAfter())
}

// silence looks whether anything has come since the last time, and says how
// long nothing has.
func (m *monitor) silence() time.Duration {
	received := m.conn.q.ConnectionStats().PacketsReceived
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if received != m.received {
		m.alive, m.received = now, received
	}
	return now.Sub(m.alive)
}

// judge says what the path is worth after such a silence, and whether that is
// something else than before.
func (m *monitor) judge(silence time.Duration) (changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.degraded
	m.degraded = silence >= m.conf.degradedAfter()
	return m.degraded != was
}

func (m *monitor) report() {
	path := m.conn.Path()
	if path.Degraded {
		m.conn.metrics.add(ConnsDegraded)
		path.Reason = "no sign of life for " + m.conf.degradedAfter().String()
	} else {
		path.Reason = "the peer is back"
	}
	m.conn.logger.Debug("path changed", zap.Bool("degraded", path.Degraded))
	if m.conn.onPath != nil {
		m.conn.onPath(path)
	}
}

func (m *monitor) giveUp(why error) {
	m.conn.close(&CloseError{Code: events.CloseLost, Cause: why})
}

func (m *monitor) ping() {
	m.mu.Lock()
	m.seq++
	seq, now := m.seq, time.Now()
	m.sent[seq%pingsKept] = now
	m.mu.Unlock()
	m.conn.control.send(events.Ping{Seq: seq, Sent: now})
}

// pong takes the answer to a ping. The round trip is measured on our own
// monotonic clock; the time in the frame is not used.
func (m *monitor) pong(seq uint64) {
	received := m.conn.q.ConnectionStats().PacketsReceived
	m.mu.Lock()
	defer m.mu.Unlock()
	at := &m.sent[seq%pingsKept]
	if seq > m.seq || seq+pingsKept <= m.seq || at.IsZero() {
		m.conn.metrics.add(PongsUnknown)
		return
	}
	now := time.Now()
	sample := max(now.Sub(*at), 1) // zero means that there was none
	*at = time.Time{}              // a second pong is unknown
	if m.rtt == 0 {
		m.rtt = sample
		close(m.conn.confirmed)
	} else {
		m.rtt += (sample - m.rtt) / 8 // as RFC 9002, section 5.3, smooths
	}
	m.alive, m.received = now, received
	if m.degraded {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}

func (m *monitor) state() (rtt time.Duration, degraded bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rtt, m.degraded
}

// probe asks the peer's host whether the peer is gone, beside everything else.
// Its answer counts only while the peer is silent: a firewall that lets the
// connection through may well refuse a stranger's packet.
func (m *monitor) probe() {
	if m.unreachable == nil {
		return
	}
	m.mu.Lock()
	busy := m.probing
	m.probing = true
	m.mu.Unlock()
	if busy {
		return
	}
	m.conn.spawn(func() {
		gone := m.unreachable(m.conn.q.Context())
		m.mu.Lock()
		m.probing = false
		m.mu.Unlock()
		if gone && m.silence() >= 2*m.conf.Interval {
			m.giveUp(ErrPeerUnreachable)
		}
	})
}
