package events

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The golden frames in testdata/frames are the protocol as it is on the wire,
// one file a message. A change of one of them is a change of the protocol:
//
//	go test ./events -run TestGoldenFrames -update
var update = flag.Bool("update", false, "rewrite the golden frames in testdata/frames")

const frameDir = "../testdata/frames"

// goldenTime is a fixed moment with as much precision as the wire carries.
var goldenTime = time.Date(2026, time.March, 1, 12, 30, 15, 123456000, time.UTC)

// goldenFrame is one message, the file that holds it and its codec.
type goldenFrame struct {
	file   string
	value  any
	encode func() ([]byte, error)
	decode func([]byte) (any, error)
}

func goldenFrames() []goldenFrame {
	var all []goldenFrame
	for _, m := range goldenChannelMessages {
		all = append(all, goldenFrame{
			file: "channel/" + m.Type() + ".json", value: m,
			encode: func() ([]byte, error) { return EncodeChannelMessage(m) },
			decode: func(b []byte) (any, error) { return DecodeChannelMessage(b) },
		})
	}
	for name, m := range goldenWatchMessages {
		all = append(all, goldenFrame{
			file: "watch/" + name + ".json", value: m,
			encode: func() ([]byte, error) { return EncodeWatchMessage(m) },
			decode: func(b []byte) (any, error) { return DecodeWatchMessage(b) },
		})
	}
	for name, f := range goldenControlFrames {
		all = append(all, goldenFrame{
			file: "control/" + name + ".hex", value: f,
			encode: func() ([]byte, error) { return AppendControlFrame(nil, f) },
			decode: func(b []byte) (any, error) {
				return readAll(b, func(r *bufio.Reader) (any, error) { return ReadControlFrame(r) })
			},
		})
	}
	for name, h := range goldenOpenHeaders {
		all = append(all, goldenFrame{
			file: "stream/" + name + ".hex", value: h,
			encode: func() ([]byte, error) { return AppendOpenHeader(nil, h) },
			decode: func(b []byte) (any, error) {
				if len(b) == 0 || b[0] != StreamOpen {
					return nil, fmt.Errorf("% x does not begin with StreamOpen", b)
				}
				return readAll(b[1:], func(r *bufio.Reader) (any, error) { return ReadOpenHeader(r) })
			},
		})
	}
	for name, r := range goldenReplies {
		all = append(all, goldenFrame{
			file: "stream/" + name + ".hex", value: r,
			encode: func() ([]byte, error) { return AppendReply(nil, r), nil },
			decode: func(b []byte) (any, error) {
				return readAll(b, func(r *bufio.Reader) (any, error) { return ReadReply(r) })
			},
		})
	}
	return append(all, goldenFrame{
		file: "stream/flow.hex", value: flowDatagram{id: 300, payload: "ping"},
		encode: func() ([]byte, error) { return append(AppendFlow(nil, 300), "ping"...), nil },
		decode: func(b []byte) (any, error) {
			id, payload, err := SplitFlow(b)
			return flowDatagram{id, string(payload)}, err
		},
	})
}

type flowDatagram struct {
	id      uint64
	payload string
}

// readAll decodes one value and insists that it takes all of b.
func readAll(b []byte, read func(*bufio.Reader) (any, error)) (any, error) {
	r := bufio.NewReader(bytes.NewReader(b))
	v, err := read(r)
	if err == nil && r.Buffered() > 0 {
		err = fmt.Errorf("%d bytes are left over", r.Buffered())
	}
	return v, err
}

var goldenChannelMessages = []ChannelMessage{
	&SessionHello{AgentID: "0b5c1f2e-6f0f-4f9e-8d1c-2f1f5e7a9b10", Version: "1.2.3", Capabilities: []string{"tunnel"}},
	&SessionWelcome{SessionID: "c1", Capabilities: []string{"tunnel"}, LogsStored: 41},
	&SessionReject{Code: RejectBuildOver, Message: "build 3 of workspace demo is over"},
	&TimeRequest{ClientTransmit: goldenTime},
	&TimeResponse{ClientTransmit: goldenTime, ServerReceive: goldenTime.Add(time.Second), ServerTransmit: goldenTime.Add(2 * time.Second)},
	&OrgInfoRequest{},
	&OrgInfoResponse{OrganizationID: "default"},
	&AgentLifecycle{Lifecycle: LifecycleStartError, Error: "the startup script ended with exit status 3", ChangedAt: goldenTime},
	&AgentLogs{Entries: []AgentLogEntry{
		{Seq: 42, CreatedAt: goldenTime, Level: LogInfo, Source: "startup_script", Stage: "startup", Output: "preparing <workspace>"},
		{Seq: 43, CreatedAt: goldenTime, Level: LogError, Source: "service web", Stage: "run", Output: "naïve \u001b[31mred\u001b[0m"},
	}},
	&AgentLogsAck{Seq: 43},
	&AgentStats{Tunnels: 1, Streams: 2, BytesSent: 3 << 40, BytesReceived: 4},
	&ConnectionRequest{
		RequestID: "r1", Kind: ConnectionTunnel, SessionID: "s1",
		PeerKeyHash:    strings.Repeat("0f", 32),
		PeerCandidates: []string{"192.0.2.1:4242", "[2001:db8::1]:4242"}, Expires: goldenTime,
	},
	&ConnectionResult{RequestID: "r1", KeyHash: strings.Repeat("f0", 32), Candidates: []string{"127.0.0.1:51820"}},
}

var goldenWatchMessages = map[string]WatchMessage{
	"build_update": {BuildUpdate: &BuildUpdate{Number: 7, Transition: TransitionStart, Status: JobFailed, Error: "no such template"}},
	"agent_update": {AgentUpdate: &AgentUpdate{ID: "a1", Name: "main", Build: 7, Lifecycle: LifecycleReady, Status: AgentConnected}},
	"build_log":    {BuildLog: &Log{ID: 1, CreatedAt: goldenTime, Level: LogInfo, Source: "provisioner", Stage: "start", Output: "started process 17"}},
	"agent_log":    {AgentLog: &Log{ID: 2, CreatedAt: goldenTime, Level: LogWarn, Source: "startup_script", Stage: "startup", Output: "warning: deprecated"}},
	"error":        {Error: &WatchError{Code: WatchServerShutdown, Retryable: true, Message: "the coordinator is shutting down", Details: "restart"}},
}

var goldenControlFrames = map[string]ControlFrame{
	"ping":       Ping{Seq: 1, Sent: goldenTime},
	"pong":       Pong{Seq: 1, Sent: goldenTime},
	"candidates": Candidates{Addrs: []string{"192.0.2.1:4242", "[2001:db8::1]:4242"}},
	"drain":      Drain{Grace: 30 * time.Second, Reason: "the agent is going away"},
	"close":      Close{Code: CloseReplaced, Reason: "the tunneler connects anew"},
	"drained":    Drained{Streams: 300},
}

var goldenOpenHeaders = map[string]OpenHeader{
	"open.tcp":  {Network: NetworkTCP, Target: "localhost:3000", Deadline: 10 * time.Second},
	"open.udp":  {Network: NetworkUDP, Target: "db.internal:53"},
	"open.unix": {Network: NetworkUnix, Target: "run/web.sock", Deadline: time.Millisecond},
}

var goldenReplies = map[string]Reply{
	"reply.ok":      {Code: ReplyOK},
	"reply.refused": {Code: ReplyRefused, Text: "nothing listens on port 3000 in workspace demo"},
}

func TestGoldenFramesAreTheWire(t *testing.T) {
	known := make(map[string]bool)
	for _, f := range goldenFrames() {
		path := filepath.Join(frameDir, f.file)
		known[path] = true
		t.Run(f.file, func(t *testing.T) {
			wire, err := f.encode()
			require.NoError(t, err)
			text := frameText(f.file, wire)
			if *update {
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
			}
			golden, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(golden), text, "the protocol has changed: a released message is never edited")

			decoded, err := f.decode(frameBytes(t, f.file, golden))
			require.NoError(t, err)
			require.Equal(t, f.value, decoded)
		})
	}
	require.NoError(t, filepath.WalkDir(frameDir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			require.True(t, known[path], "%s belongs to no message", path)
		}
		return err
	}))
}

func TestEveryChannelMessageHasAGoldenFrame(t *testing.T) {
	have := make(map[string]bool)
	for _, m := range goldenChannelMessages {
		have[m.Type()] = true
	}
	for name := range channelMessages {
		require.True(t, have[name], "%s has no golden frame", name)
	}
}

// frameText is a frame as its file holds it: JSON as it is, binary in hex,
// sixteen bytes a line.
func frameText(file string, wire []byte) string {
	if strings.HasSuffix(file, ".json") {
		return string(wire) + "\n"
	}
	var text strings.Builder
	for len(wire) > 0 {
		n := min(16, len(wire))
		fmt.Fprintf(&text, "% x\n", wire[:n])
		wire = wire[n:]
	}
	return text.String()
}

func frameBytes(t *testing.T, file string, text []byte) []byte {
	if strings.HasSuffix(file, ".json") {
		return bytes.TrimSuffix(text, []byte("\n"))
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	require.NoError(t, err)
	return b
}
