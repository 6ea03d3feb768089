package tailnet

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
)

// DefaultMaxSessions is how many sessions a listener keeps, expected and
// connected together.
const DefaultMaxSessions = 1024

// DefaultResume is how long after the loss of its connection a session may be
// connected to anew.
const DefaultResume = 2 * time.Minute

// Session is a tunneler that the agent was told to expect.
type Session struct {
	// ID is the session's id: 1 to 63 lower-case letters, digits and hyphens.
	ID string
	// Identity is the agent's key for this session.
	Identity *Identity
	// PeerKeyHash is the hash of the tunneler's key for this session.
	PeerKeyHash KeyHash
	// Expires bounds how long the tunneler may take to arrive; it means
	// nothing to a connection that is up.
	Expires time.Time
}

// checkSessionID makes sure that the id arrives as it was sent: TLS treats a
// server name as a host name (RFC 6066, section 3), and one label of it is
// enough.
func checkSessionID(id string) error {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-"
	if len(id) < 1 || len(id) > 63 || strings.Trim(id, letters) != "" || net.ParseIP(id) != nil {
		return fmt.Errorf("bad session id %q: expected 1 to 63 lower-case letters, digits and hyphens", id)
	}
	return nil
}

// session is an entry of the table.
type session struct {
	Session
	tls *tls.Config
	// conn is the live connection; while there is none, until is when the
	// session is over.
	conn  *Conn
	until time.Time
	// warned is set once a wrong key was logged as a warning: an observer of
	// the network could make us write any number of them.
	warned bool
}

// sessionTable is what a listener knows of its sessions.
//
// A session is not used up by its first connection: whoever holds its key may
// connect again, because a tunneler that has lost its connection should not
// need the coordinator to come back. There is one connection at a time. A new
// one replaces the old one at once, since the tunneler knows first when a
// connection is dead. The session ends when a connection is closed on purpose by
// either side, or when it was lost and nobody came back in time.
type sessionTable struct {
	limit   int
	resume  time.Duration
	logger  *zap.Logger
	metrics *Metrics

	mu      sync.Mutex
	closed  bool
	entries map[string]*session
}

// expect adds a session, or replaces the one of that id and gives its live
// connection.
func (t *sessionTable) expect(s Session) (replaced *Conn, err error) {
	if s.Identity == nil || s.PeerKeyHash.IsZero() {
		return nil, errors.New("a session needs an identity and the hash of the tunneler's key")
	}
	if err := checkSessionID(s.ID); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, ErrListenerClosed
	}
	entry := &session{Session: s, until: s.Expires}
	entry.tls = serverTLS(s.Identity, s.PeerKeyHash, func(err *PeerKeyError) { t.refusedKey(entry, err) })
	old := t.entries[s.ID]
	if old == nil && len(t.entries) >= t.limit {
		t.purge()
		if len(t.entries) >= t.limit {
			return nil, fmt.Errorf("%w: %d, which is the limit", ErrTooManySessions, len(t.entries))
		}
	}
	t.entries[s.ID] = entry
	if old != nil {
		replaced = old.conn
	}
	return replaced, nil
}

// purge drops the sessions that are over. Nothing else needs to: they take no
// connection either way.
func (t *sessionTable) purge() {
	now := time.Now()
	for id, s := range t.entries {
		if s.conn == nil && !now.Before(s.until) {
			delete(t.entries, id)
		}
	}
}

// find gives the session, unless it is over.
func (t *sessionTable) find(id string) *session {
	s := t.entries[id]
	if s != nil && s.conn == nil && !time.Now().Before(s.until) {
		delete(t.entries, id)
		return nil
	}
	return s
}

// configFor picks a handshake's identity and pinned key by its server name.
func (t *sessionTable) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.find(hello.ServerName); s != nil {
		return s.tls, nil
	}
	t.metrics.add(SessionsUnknown)
	return nil, fmt.Errorf("session is not expected: %w", alertUnrecognizedName)
}

// refusedKey is called in the midst of a handshake.
func (t *sessionTable) refusedKey(s *session, err *PeerKeyError) {
	t.metrics.add(PeerKeysRefused)
	t.mu.Lock()
	first := !s.warned
	s.warned = true
	t.mu.Unlock()
	if first {
		t.logger.Warn("refused a tunneler with a wrong key", zap.String("session", s.ID), zap.Error(err))
	}
}

// claim makes c the session's connection, if the session takes it, and gives
// the one that it replaces.
func (t *sessionTable) claim(c *Conn, peer KeyHash) (replaced *Conn, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.find(c.session)
	// The session may have ended, or changed hands, since the handshake.
	if t.closed || s == nil || s.PeerKeyHash != peer {
		return nil, false
	}
	replaced, s.conn = s.conn, c
	return replaced, true
}

// release takes note that c has ended.
func (t *sessionTable) release(c *Conn, why *CloseError) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.entries[c.session]
	if s == nil || s.conn != c {
		return
	}
	s.conn = nil
	switch {
	case why.Code != events.CloseLost:
		delete(t.entries, c.session)
	case time.Now().Add(t.resume).After(s.until):
		s.until = time.Now().Add(t.resume)
	}
}

// forget ends the session and gives its live connection.
func (t *sessionTable) forget(id string) *Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.entries[id]
	if s == nil {
		return nil
	}
	delete(t.entries, id)
	return s.conn
}

// close ends all sessions and gives their live connections.
func (t *sessionTable) close() []*Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	var conns []*Conn
	for _, s := range t.entries {
		if s.conn != nil {
			conns = append(conns, s.conn)
		}
	}
	return conns
}
