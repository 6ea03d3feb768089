package events

import (
	"encoding/json"
	"errors"
	"fmt"
)

// MaxWatchMessage is the size limit of one watch message in bytes.
const MaxWatchMessage = 256 << 10

// WatchErrorCode is the machine-readable cause of a WatchError.
type WatchErrorCode string

// The causes a coordinator may give.
const (
	WatchTooManyAgents  WatchErrorCode = "too_many_agents" // name the agent
	WatchNameNotFound   WatchErrorCode = "name_not_found"  // no agent of that name
	WatchNoAgents       WatchErrorCode = "no_agents"       // the workspace has none
	WatchServerShutdown WatchErrorCode = "server_shutdown" // come back soon
	WatchDatabase       WatchErrorCode = "database"        // the store is out of reach
	WatchInternal       WatchErrorCode = "internal"        // a defect at the coordinator
	WatchUnauthorized   WatchErrorCode = "unauthorized"    // the token is no longer good
	WatchNotFound       WatchErrorCode = "not_found"       // the workspace is gone
)

// WatchError is the coordinator's reason for ending a watch.
type WatchError struct {
	Code      WatchErrorCode `json:"code"`
	Retryable bool           `json:"retryable"`
	Message   string         `json:"message"`
	Details   string         `json:"details,omitempty"`
}

// Error implements error.
func (e *WatchError) Error() string {
	if e.Details != "" {
		return fmt.Sprintf("%s (%s)", e.Message, e.Details)
	}
	return e.Message
}

// WatchMessage is one message of the agent-connection watch, coordinator to
// tunneler (docs/protocol.md, section 1). Exactly one field is set.
type WatchMessage struct {
	Error       *WatchError  `json:"error,omitempty"`
	BuildUpdate *BuildUpdate `json:"build_update,omitempty"`
	AgentUpdate *AgentUpdate `json:"agent_update,omitempty"`
	BuildLog    *Log         `json:"build_log,omitempty"`
	AgentLog    *Log         `json:"agent_log,omitempty"`
}

// ErrWatchMessage is wrapped by every error of DecodeWatchMessage.
var ErrWatchMessage = errors.New("bad watch message")

// DecodeWatchMessage parses one text frame of the watch. The error wraps
// ErrWatchMessage.
func DecodeWatchMessage(b []byte) (WatchMessage, error) {
	var m WatchMessage
	if len(b) > MaxWatchMessage {
		return m, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrWatchMessage, len(b), MaxWatchMessage)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return WatchMessage{}, fmt.Errorf("%w: %w", ErrWatchMessage, err)
	}
	if n := m.fields(); n != 1 {
		return WatchMessage{}, fmt.Errorf("%w: %d known fields, exactly 1 expected", ErrWatchMessage, n)
	}
	switch {
	case m.BuildUpdate != nil && m.BuildUpdate.Number < 0,
		m.AgentUpdate != nil && m.AgentUpdate.Build < 0:
		return WatchMessage{}, fmt.Errorf("%w: negative build number", ErrWatchMessage)
	case m.AgentUpdate != nil && m.AgentUpdate.ID == "" && m.AgentUpdate.Status == AgentConnected:
		return WatchMessage{}, fmt.Errorf("%w: connected agent without id", ErrWatchMessage)
	}
	for _, l := range []*Log{m.BuildLog, m.AgentLog} {
		if l == nil {
			continue
		}
		if err := normalise(l); err != nil {
			return WatchMessage{}, fmt.Errorf("%w: %w", ErrWatchMessage, err)
		}
	}
	return m, nil
}

// EncodeWatchMessage renders m as one text frame.
func EncodeWatchMessage(m WatchMessage) ([]byte, error) {
	if n := m.fields(); n != 1 {
		return nil, fmt.Errorf("%w: %d fields, exactly 1 expected", ErrWatchMessage, n)
	}
	return json.Marshal(m)
}

func (m WatchMessage) fields() int {
	n := 0
	for _, set := range []bool{m.Error != nil, m.BuildUpdate != nil, m.AgentUpdate != nil, m.BuildLog != nil, m.AgentLog != nil} {
		if set {
			n++
		}
	}
	return n
}
