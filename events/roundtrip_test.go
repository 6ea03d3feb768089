package events

import (
	"bufio"
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// What the wire cannot carry is left out of the generators: invalid UTF-8 in
// JSON, less than a nanosecond, years beyond four digits.

func genTime() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(0, 1<<37).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).UTC()
	})
}

func genTexts(limit int) *rapid.Generator[[]string] { return rapid.SliceOfN(rapid.String(), 0, limit) }

func genEnum[E ~uint8](last E) *rapid.Generator[E] {
	return rapid.Map(rapid.Uint8Range(0, uint8(last)), func(v uint8) E { return E(v) })
}

func genLogEntry() *rapid.Generator[AgentLogEntry] {
	return rapid.Custom(func(t *rapid.T) AgentLogEntry {
		return AgentLogEntry{
			Seq: rapid.Uint64().Draw(t, "seq"), CreatedAt: genTime().Draw(t, "created"),
			Level: genEnum(LogError).Draw(t, "level"), Source: rapid.String().Draw(t, "source"),
			Stage: rapid.String().Draw(t, "stage"), Output: rapid.String().Draw(t, "output"),
		}
	})
}

// genChannelMessage makes any message of the coordination channel.
func genChannelMessage() *rapid.Generator[ChannelMessage] {
	return rapid.Custom(func(t *rapid.T) ChannelMessage {
		text := func(what string) string { return rapid.String().Draw(t, what) }
		switch kind := rapid.IntRange(0, 12).Draw(t, "kind"); kind {
		case 0:
			return &SessionHello{AgentID: text("id"), Version: text("version"), Capabilities: genTexts(3).Draw(t, "capabilities")}
		case 1:
			return &SessionWelcome{SessionID: text("id"), Capabilities: genTexts(3).Draw(t, "capabilities"), LogsStored: rapid.Uint64().Draw(t, "stored")}
		case 2:
			return &SessionReject{Code: RejectCode(text("code")), Message: text("message"), Retryable: rapid.Bool().Draw(t, "retryable")}
		case 3:
			return &TimeRequest{ClientTransmit: genTime().Draw(t, "t1")}
		case 4:
			return &TimeResponse{ClientTransmit: genTime().Draw(t, "t1"), ServerReceive: genTime().Draw(t, "t2"), ServerTransmit: genTime().Draw(t, "t3")}
		case 5:
			return &OrgInfoRequest{}
		case 6:
			return &OrgInfoResponse{OrganizationID: text("id")}
		case 7:
			return &AgentLifecycle{Lifecycle: genEnum(LifecycleOff).Draw(t, "lifecycle"), Error: text("error"), ChangedAt: genTime().Draw(t, "changed")}
		case 8:
			return &AgentLogs{Entries: rapid.SliceOfN(genLogEntry(), 0, 4).Draw(t, "entries")}
		case 9:
			return &AgentLogsAck{Seq: rapid.Uint64().Draw(t, "seq")}
		case 10:
			return &AgentStats{
				Tunnels: rapid.Int().Draw(t, "tunnels"), Streams: rapid.Int().Draw(t, "streams"),
				BytesSent: rapid.Int64().Draw(t, "sent"), BytesReceived: rapid.Int64().Draw(t, "received"),
			}
		case 11:
			return &ConnectionRequest{
				RequestID: text("id"), Kind: ConnectionKind(text("kind")), SessionID: text("session"), GatewayID: text("gateway"),
				GatewayAddress: text("address"), Hostname: text("host"), ConnectToken: text("token"), PeerKeyHash: text("hash"),
				PeerCandidates: optional(genTexts(3).Draw(t, "candidates")), Expires: genTime().Draw(t, "expires"),
			}
		default:
			return &ConnectionResult{
				RequestID: text("id"), Error: text("error"), KeyHash: text("hash"), Candidates: optional(genTexts(3).Draw(t, "candidates")),
			}
		}
	})
}

// optional is a list as a field with omitempty carries it: none is nil.
func optional(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

func TestPropertyAChannelMessageSurvivesTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genChannelMessage().Draw(t, "message")
		wire, err := EncodeChannelMessage(want)
		require.NoError(t, err)
		got, err := DecodeChannelMessage(wire)
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func genWatchMessage() *rapid.Generator[WatchMessage] {
	return rapid.Custom(func(t *rapid.T) WatchMessage {
		text := func(what string) string { return rapid.String().Draw(t, what) }
		log := func() *Log {
			return &Log{
				ID: rapid.Int64().Draw(t, "id"), CreatedAt: genTime().Draw(t, "created"), Level: genEnum(LogError).Draw(t, "level"),
				Source: text("source"), Stage: text("stage"), Output: text("output"),
			}
		}
		number := rapid.Int64Range(0, math.MaxInt64)
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			return WatchMessage{Error: &WatchError{
				Code: WatchErrorCode(text("code")), Retryable: rapid.Bool().Draw(t, "retryable"), Message: text("message"), Details: text("details"),
			}}
		case 1:
			return WatchMessage{BuildUpdate: &BuildUpdate{
				Number: number.Draw(t, "number"), Transition: genEnum(TransitionDelete).Draw(t, "transition"),
				Status: genEnum(JobFailed).Draw(t, "status"), Error: text("error"),
			}}
		case 2:
			status := genEnum(AgentTimeout).Draw(t, "status")
			id := rapid.String()
			if status == AgentConnected {
				id = rapid.StringN(1, -1, -1)
			}
			return WatchMessage{AgentUpdate: &AgentUpdate{
				ID: id.Draw(t, "id"), Name: text("name"), Build: number.Draw(t, "build"),
				Lifecycle: genEnum(LifecycleOff).Draw(t, "lifecycle"), Status: status,
			}}
		case 3:
			return WatchMessage{BuildLog: log()}
		default:
			return WatchMessage{AgentLog: log()}
		}
	})
}

func TestPropertyAWatchMessageSurvivesTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genWatchMessage().Draw(t, "message")
		wire, err := EncodeWatchMessage(want)
		require.NoError(t, err)
		got, err := DecodeWatchMessage(wire)
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

func genControlFrame() *rapid.Generator[ControlFrame] {
	return rapid.Custom(func(t *rapid.T) ControlFrame {
		seq := func() uint64 { return rapid.Uint64().Draw(t, "seq") }
		sent := func() time.Time { return time.UnixMicro(rapid.Int64().Draw(t, "sent")).UTC() }
		reason := func() string { return rapid.StringN(0, -1, MaxReplyText).Draw(t, "reason") }
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			return Ping{seq(), sent()}
		case 1:
			return Pong{seq(), sent()}
		case 2:
			return Candidates{optional(rapid.SliceOfN(rapid.StringN(0, 50, -1), 0, MaxCandidates).Draw(t, "addresses"))}
		case 3:
			return Drain{time.Duration(rapid.Uint64Range(0, maxDeadline).Draw(t, "grace")) * time.Millisecond, reason()}
		case 4:
			return Close{CloseCode(rapid.Byte().Draw(t, "code")), reason()}
		default:
			return Drained{rapid.Uint64Range(0, maxFlowID).Draw(t, "streams")}
		}
	})
}

func TestPropertyAControlFrameSurvivesTheWireBesideAnother(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(genControlFrame(), 1, 3).Draw(t, "frames")
		var wire []byte
		for _, f := range want {
			var err error
			wire, err = AppendControlFrame(wire, f)
			require.NoError(t, err)
		}
		r := bufio.NewReader(bytes.NewReader(wire))
		for _, f := range want {
			got, err := ReadControlFrame(r)
			require.NoError(t, err)
			require.Equal(t, f, got)
		}
		require.Zero(t, r.Buffered())
	})
}

func TestPropertyAStreamBeginningSurvivesTheWireAndTakesNoData(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		header := OpenHeader{
			Network:  Network(rapid.Uint8Range(uint8(NetworkTCP), uint8(NetworkUnix)).Draw(t, "network")),
			Target:   rapid.StringN(1, -1, MaxTarget).Draw(t, "target"),
			Deadline: time.Duration(rapid.Uint64Range(0, maxDeadline).Draw(t, "deadline")) * time.Millisecond,
		}
		reply := Reply{
			Code: genEnum(ReplyInternal).Draw(t, "code"), Text: rapid.StringN(0, -1, MaxReplyText).Draw(t, "text"),
		}
		data := rapid.SliceOf(rapid.Byte()).Draw(t, "data")

		wire, err := AppendOpenHeader(nil, header)
		require.NoError(t, err)
		r := bytes.NewReader(append(wire[1:], data...))
		gotHeader, err := ReadOpenHeader(r)
		require.NoError(t, err)
		require.Equal(t, header, gotHeader)
		require.Equal(t, len(data), r.Len())

		r = bytes.NewReader(append(AppendReply(nil, reply), data...))
		gotReply, err := ReadReply(r)
		require.NoError(t, err)
		require.Equal(t, reply, gotReply)
		require.Equal(t, len(data), r.Len())

		id := rapid.Uint64Range(0, maxFlowID).Draw(t, "flow")
		gotID, payload, err := SplitFlow(append(AppendFlow(nil, id), data...))
		require.NoError(t, err)
		require.Equal(t, id, gotID)
		require.True(t, bytes.Equal(data, payload))
	})
}

func TestPropertyAnEnumerationSurvivesItsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		transition := genEnum(TransitionDelete).Draw(t, "transition")
		text, err := transition.MarshalText()
		require.NoError(t, err)
		var gotTransition Transition
		require.NoError(t, gotTransition.UnmarshalText(text))
		require.Equal(t, transition, gotTransition)

		path := genEnum(PathWebSocket).Draw(t, "path")
		text, err = path.MarshalText()
		require.NoError(t, err)
		var gotPath PathKind
		require.NoError(t, gotPath.UnmarshalText(text))
		require.Equal(t, path, gotPath)

		watch := genEnum(WatchLost).Draw(t, "watch")
		text, err = watch.MarshalText()
		require.NoError(t, err)
		var gotWatch WatchState
		require.NoError(t, gotWatch.UnmarshalText(text))
		require.Equal(t, watch, gotWatch)
	})
}
