package events

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestALongSentenceIsCutBetweenCharacters(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want int
	}{
		"one that fits stays whole":               {strings.Repeat("a", MaxReplyText), MaxReplyText},
		"one of single bytes is cut at the limit": {strings.Repeat("a", MaxReplyText+1), MaxReplyText},
		"a character is not torn apart":           {strings.Repeat("a", MaxReplyText-1) + "é", MaxReplyText - 1},
		"nor is a long one":                       {strings.Repeat("a", MaxReplyText-3) + "🚇", MaxReplyText - 3},
		"what is no text at all is cut somehow":   {strings.Repeat("\x80", MaxReplyText+1), MaxReplyText - 4},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ReadReply(bytes.NewReader(AppendReply(nil, Reply{Code: ReplyRefused, Text: c.text})))
			require.NoError(t, err)
			require.Equal(t, c.text[:c.want], got.Text)

			frame, err := AppendControlFrame(nil, Close{Reason: c.text})
			require.NoError(t, err)
			closing, err := ReadControlFrame(bytes.NewReader(frame))
			require.NoError(t, err)
			require.Equal(t, Close{Reason: c.text[:c.want]}, closing)
		})
	}
}

func TestATimeThatThePeerWouldRefuseIsSentAsTheLongestAllowed(t *testing.T) {
	wire, err := AppendOpenHeader(nil, OpenHeader{Network: NetworkTCP, Target: "x", Deadline: 100 * 24 * time.Hour})
	require.NoError(t, err)
	header, err := ReadOpenHeader(bytes.NewReader(wire[1:]))
	require.NoError(t, err)
	require.Equal(t, 24*time.Hour, header.Deadline)

	wire, err = AppendControlFrame(nil, Drain{Grace: 100 * 24 * time.Hour})
	require.NoError(t, err)
	drain, err := ReadControlFrame(bytes.NewReader(wire))
	require.NoError(t, err)
	require.Equal(t, Drain{Grace: 24 * time.Hour}, drain)

	wire, err = AppendControlFrame(nil, Drain{Grace: -time.Second})
	require.NoError(t, err)
	drain, err = ReadControlFrame(bytes.NewReader(wire))
	require.NoError(t, err)
	require.Equal(t, Drain{}, drain)
}

func TestWhatBreaksALimitIsRefused(t *testing.T) {
	for name, err := range map[string]error{
		"a channel message that is too long":           second(DecodeChannelMessage(make([]byte, MaxChannelMessage+1))),
		"a channel message without a type":             second(DecodeChannelMessage([]byte(`{"data":{}}`))),
		"a time that has no text form":                 second(DecodeChannelMessage([]byte(`{"type":"time.request","data":{"client_transmit_time":"9999-12-31T23:59:59-01:00"}}`))),
		"a channel message that does not fit its type": second(DecodeChannelMessage([]byte(`{"type":"agent.logs","data":{"entries":7}}`))),
	} {
		require.ErrorIs(t, err, ErrChannelMessage, name)
	}
	for name, err := range map[string]error{
		"a watch message that is too long":       second(DecodeWatchMessage(make([]byte, MaxWatchMessage+1))),
		"a watch message with two fields":        second(DecodeWatchMessage([]byte(`{"build_log":{},"agent_log":{}}`))),
		"a watch message with none":              second(DecodeWatchMessage([]byte(`{"new_thing":{}}`))),
		"a watch message with none to be sent":   second(EncodeWatchMessage(WatchMessage{})),
		"a build of a negative number":           second(DecodeWatchMessage([]byte(`{"build_update":{"build_number":-1}}`))),
		"an agent of a build of negative number": second(DecodeWatchMessage([]byte(`{"agent_update":{"id":"a","build_number":-1}}`))),
		"a connected agent without an id":        second(DecodeWatchMessage([]byte(`{"agent_update":{"status":"connected"}}`))),
		"a log of a time that has no text form":  second(DecodeWatchMessage([]byte(`{"agent_log":{"created_at":"0000-01-01T00:00:00+01:00"}}`))),
	} {
		require.ErrorIs(t, err, ErrWatchMessage, name)
	}
	for name, err := range map[string]error{
		"an unknown network":    second(AppendOpenHeader(nil, OpenHeader{Network: NetworkUnix + 1, Target: "x"})),
		"no target":             second(AppendOpenHeader(nil, OpenHeader{Network: NetworkTCP})),
		"a target too long":     second(AppendOpenHeader(nil, OpenHeader{Network: NetworkTCP, Target: strings.Repeat("x", MaxTarget+1)})),
		"a negative deadline":   second(AppendOpenHeader(nil, OpenHeader{Network: NetworkTCP, Target: "x", Deadline: -1})),
		"an unknown reply code": second(ReadReply(bytes.NewReader([]byte{byte(ReplyInternal) + 1, 0}))),
	} {
		require.ErrorIs(t, err, ErrStreamHeader, name)
	}
	for name, err := range map[string]error{
		"too many candidates":      second(AppendControlFrame(nil, Candidates{make([]string, MaxCandidates+1)})),
		"candidates too long":      second(AppendControlFrame(nil, Candidates{repeat(strings.Repeat("x", MaxReplyText), MaxCandidates)})),
		"a frame that is not ours": second(AppendControlFrame(nil, UnknownFrame{Type: 99})),
		"a payload too long":       second(ReadControlFrame(bytes.NewReader([]byte{1, 0xff, 0xff, 0x7f}))),
	} {
		require.ErrorIs(t, err, ErrControlFrame, name)
	}
}

func TestAWordOfANewerPeerIsUnknownAndNoError(t *testing.T) {
	m, err := DecodeWatchMessage([]byte(`{"build_update":{"build_number":1,"transition":"hibernate","job_status":"queued"}}`))
	require.NoError(t, err)
	require.Equal(t, &BuildUpdate{Number: 1}, m.BuildUpdate)

	c, err := DecodeChannelMessage([]byte(`{"type":"agent.metadata","data":[1,2,3]}`))
	require.NoError(t, err)
	require.Equal(t, &UnknownMessage{Name: "agent.metadata"}, c)

	f, err := ReadControlFrame(bytes.NewReader([]byte{99, 2, 1, 2}))
	require.NoError(t, err)
	require.Equal(t, UnknownFrame{Type: 99}, f)
}

func TestClockOffsetIsTheMeanOfBothWays(t *testing.T) {
	t1 := goldenTime
	r := TimeResponse{
		ClientTransmit: t1,
		ServerReceive:  t1.Add(time.Hour + 30*time.Millisecond), // the clock is an hour ahead, the way there takes 30 ms
		ServerTransmit: t1.Add(time.Hour + 35*time.Millisecond),
	}
	offset, ok := r.Offset(t1.Add(45 * time.Millisecond)) // and 10 ms back
	require.True(t, ok)
	require.Equal(t, time.Hour+10*time.Millisecond, offset)

	for name, incomplete := range map[string]TimeResponse{
		"no time of ours":    {ServerReceive: t1, ServerTransmit: t1},
		"no arrival there":   {ClientTransmit: t1, ServerTransmit: t1},
		"no departure there": {ClientTransmit: t1, ServerReceive: t1},
	} {
		_, ok := incomplete.Offset(t1)
		require.False(t, ok, name)
	}
	_, ok = r.Offset(time.Time{})
	require.False(t, ok)
}

func TestATimeIsReadAsUTC(t *testing.T) {
	m, err := DecodeChannelMessage([]byte(`{"type":"agent.logs","data":{"entries":[{"created_at":"2026-03-01T12:00:00+05:30"}]}}`))
	require.NoError(t, err)
	require.Equal(t, time.Date(2026, time.March, 1, 6, 30, 0, 0, time.UTC), m.(*AgentLogs).Entries[0].CreatedAt)
}

func TestAPermanentErrorIsFoundBelowOthers(t *testing.T) {
	require.NoError(t, Permanent(nil))
	cause := &SessionReject{Code: RejectBuildOver, Message: "the build is over"}
	err := Permanent(cause)
	require.True(t, IsPermanent(err))
	require.ErrorIs(t, err, cause)
	require.EqualError(t, err, "the build is over")
	require.False(t, IsPermanent(cause))
}

func second[T any](_ T, err error) error { return err }

func repeat(s string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = s
	}
	return list
}
