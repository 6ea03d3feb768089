package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// MaxChannelMessage is the size limit of one message of the coordination
// channel in bytes, in either direction.
const MaxChannelMessage = 2 << 20

// ChannelMessage is one message of the coordination channel between agent and
// coordinator (docs/protocol.md, section 2). On the wire it is the text frame
// {"type": Type(), "data": the message}.
type ChannelMessage interface {
	// Type is the message's name on the wire.
	Type() string
}

// SessionHello is the agent's first message.
type SessionHello struct {
	// AgentID is made by the agent process when it starts.
	AgentID string `json:"agent_id"`
	// Version is the agent's software version.
	Version string `json:"version"`
	// Capabilities are the optional parts of the protocol that it speaks.
	Capabilities []string `json:"capabilities"`
}

// SessionWelcome accepts a hello.
type SessionWelcome struct {
	SessionID    string   `json:"session_id"`
	Capabilities []string `json:"capabilities"`
	// LogsStored is the sequence number of the last log entry of this agent
	// that the coordinator has stored; the agent sends what follows.
	LogsStored uint64 `json:"logs_stored"`
}

// RejectCode is the machine-readable cause of a SessionReject.
type RejectCode string

// The causes a coordinator may give.
const (
	RejectBadHello     RejectCode = "bad_hello"     // the hello breaks the protocol
	RejectUnauthorized RejectCode = "unauthorized"  // the token is not good for this agent
	RejectBuildOver    RejectCode = "build_over"    // the agent's build is not the workspace's current one any more
	RejectReplaced     RejectCode = "replaced"      // a newer process of the same agent has taken its place
	RejectUnavailable  RejectCode = "unavailable"   // the coordinator cannot serve it now
	RejectShuttingDown RejectCode = "shutting_down" // the coordinator is going away; come back soon
)

// SessionReject refuses a hello, or ends a session that was welcome.
type SessionReject struct {
	Code RejectCode `json:"code"`
	// Message is one sentence for a person.
	Message string `json:"message"`
	// Retryable tells whether the same hello may succeed later.
	Retryable bool `json:"retryable"`
}

// Error implements error.
func (r *SessionReject) Error() string { return r.Message }

// TimeRequest asks for the coordinator's clock.
type TimeRequest struct {
	ClientTransmit time.Time `json:"client_transmit_time"`
}

// TimeResponse answers a TimeRequest.
type TimeResponse struct {
	ClientTransmit time.Time `json:"client_transmit_time"`
	ServerReceive  time.Time `json:"server_receive_time"`
	ServerTransmit time.Time `json:"server_transmit_time"`
}

// Offset is how far the coordinator's clock is ahead of ours, given the local
// time of arrival: ((T2-T1)+(T3-T4))/2. ok is false when a time is missing.
func (r TimeResponse) Offset(arrived time.Time) (offset time.Duration, ok bool) {
	if r.ClientTransmit.IsZero() || r.ServerReceive.IsZero() || r.ServerTransmit.IsZero() || arrived.IsZero() {
		return 0, false
	}
	return (r.ServerReceive.Sub(r.ClientTransmit) + r.ServerTransmit.Sub(arrived)) / 2, true
}

// OrgInfoRequest asks to which organisation the agent belongs.
type OrgInfoRequest struct{}

// OrgInfoResponse answers it; an empty ID is ignored.
type OrgInfoResponse struct {
	OrganizationID string `json:"organization_id"`
}

// AgentLifecycle reports a change of the agent's lifecycle.
type AgentLifecycle struct {
	Lifecycle Lifecycle `json:"lifecycle"`
	// Error says what went wrong in an error or timeout state.
	Error     string    `json:"error,omitempty"`
	ChangedAt time.Time `json:"changed_at"`
}

// AgentLogEntry is one line of the agent's log with the agent's own sequence
// number, by which it is acknowledged and deduplicated.
type AgentLogEntry struct {
	Seq       uint64    `json:"seq"`
	CreatedAt time.Time `json:"created_at"`
	Level     LogLevel  `json:"level"`
	Source    string    `json:"source"`
	Stage     string    `json:"stage"`
	Output    string    `json:"output"`
}

// AgentLogs carries a batch of log lines, in order of Seq.
type AgentLogs struct {
	Entries []AgentLogEntry `json:"entries"`
}

// AgentLogsAck says that all entries up to Seq are stored.
type AgentLogsAck struct {
	Seq uint64 `json:"seq"`
}

// AgentStats are the agent's gauges; each report replaces the last.
type AgentStats struct {
	Tunnels       int   `json:"tunnels"`
	Streams       int   `json:"streams"`
	BytesSent     int64 `json:"bytes_sent"`
	BytesReceived int64 `json:"bytes_received"`
}

// ConnectionKind is what a requested connection is for.
type ConnectionKind string

// The kinds of requested connection.
const (
	ConnectionTunnel ConnectionKind = "tunnel" // a tunneler wants to reach this agent
	ConnectionUplink ConnectionKind = "uplink" // a gateway wants to
)

// ConnectionRequest tells the agent to expect, or to make, a connection.
type ConnectionRequest struct {
	RequestID string         `json:"request_id"`
	Kind      ConnectionKind `json:"kind"`
	// SessionID names the tunnel; it is the TLS server name of the tailnet.
	SessionID      string `json:"session_id,omitempty"`
	GatewayID      string `json:"gateway_id,omitempty"`
	GatewayAddress string `json:"gateway_address,omitempty"`
	Hostname       string `json:"hostname,omitempty"`
	ConnectToken   string `json:"connect_token,omitempty"`
	// PeerKeyHash is the SHA-256 of the peer's public key, in hex.
	PeerKeyHash string `json:"peer_key_hash,omitempty"`
	// PeerCandidates are UDP addresses where the peer may be reached.
	PeerCandidates []string `json:"peer_candidates,omitempty"`
	// Expires bounds how long the peer may take to come; it does not end a
	// connection that has come.
	Expires time.Time `json:"expires,omitzero"`
}

// ConnectionResult answers a ConnectionRequest.
type ConnectionResult struct {
	RequestID string `json:"request_id"`
	// Error says why the agent refused; empty for success.
	Error string `json:"error,omitempty"`
	// KeyHash is the SHA-256 of the agent's public key for this session.
	KeyHash string `json:"key_hash,omitempty"`
	// Candidates are UDP addresses where the agent may be reached.
	Candidates []string `json:"candidates,omitempty"`
}

// UnknownMessage is a message whose type this version does not know. It is
// counted and otherwise ignored.
type UnknownMessage struct{ Name string }

// Type names, as on the wire.
func (*SessionHello) Type() string      { return "session.hello" }
func (*SessionWelcome) Type() string    { return "session.welcome" }
func (*SessionReject) Type() string     { return "session.reject" }
func (*TimeRequest) Type() string       { return "time.request" }
func (*TimeResponse) Type() string      { return "time.response" }
func (*OrgInfoRequest) Type() string    { return "org.info.request" }
func (*OrgInfoResponse) Type() string   { return "org.info.response" }
func (*AgentLifecycle) Type() string    { return "agent.lifecycle" }
func (*AgentLogs) Type() string         { return "agent.logs" }
func (*AgentLogsAck) Type() string      { return "agent.logs.ack" }
func (*AgentStats) Type() string        { return "agent.stats" }
func (*ConnectionRequest) Type() string { return "connection.request" }
func (*ConnectionResult) Type() string  { return "connection.result" }
func (m *UnknownMessage) Type() string  { return m.Name }

// channelMessages makes an empty message for each known type.
var channelMessages = map[string]func() ChannelMessage{
	"session.hello":      func() ChannelMessage { return new(SessionHello) },
	"session.welcome":    func() ChannelMessage { return new(SessionWelcome) },
	"session.reject":     func() ChannelMessage { return new(SessionReject) },
	"time.request":       func() ChannelMessage { return new(TimeRequest) },
	"time.response":      func() ChannelMessage { return new(TimeResponse) },
	"org.info.request":   func() ChannelMessage { return new(OrgInfoRequest) },
	"org.info.response":  func() ChannelMessage { return new(OrgInfoResponse) },
	"agent.lifecycle":    func() ChannelMessage { return new(AgentLifecycle) },
	"agent.logs":         func() ChannelMessage { return new(AgentLogs) },
	"agent.logs.ack":     func() ChannelMessage { return new(AgentLogsAck) },
	"agent.stats":        func() ChannelMessage { return new(AgentStats) },
	"connection.request": func() ChannelMessage { return new(ConnectionRequest) },
	"connection.result":  func() ChannelMessage { return new(ConnectionResult) },
}

// ErrChannelMessage is wrapped by every error of DecodeChannelMessage.
var ErrChannelMessage = errors.New("bad channel message")

type envelope struct {
	Type string          `json:"type"`
	Data json.RawMessage `json:"data"`
}

// DecodeChannelMessage parses one text frame of the coordination channel. A
// type that is not known gives an *UnknownMessage and no error. The error
// wraps ErrChannelMessage.
func DecodeChannelMessage(b []byte) (ChannelMessage, error) {
	if len(b) > MaxChannelMessage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrChannelMessage, len(b), MaxChannelMessage)
	}
	var env envelope
	if err := json.Unmarshal(b, &env); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChannelMessage, err)
	}
	if env.Type == "" {
		return nil, fmt.Errorf("%w: no type", ErrChannelMessage)
	}
	fresh, ok := channelMessages[env.Type]
	if !ok {
		return &UnknownMessage{Name: env.Type}, nil
	}
	m := fresh()
	if len(env.Data) > 0 {
		if err := json.Unmarshal(env.Data, m); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrChannelMessage, env.Type, err)
		}
	}
	if m, ok := m.(timed); ok {
		if err := normalise(m); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrChannelMessage, env.Type, err)
		}
	}
	return m, nil
}

// EncodeChannelMessage renders m as one text frame.
func EncodeChannelMessage(m ChannelMessage) ([]byte, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrChannelMessage, m.Type(), err)
	}
	return json.Marshal(envelope{Type: m.Type(), Data: data})
}
