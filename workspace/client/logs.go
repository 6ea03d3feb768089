package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
)

// LogOptions choose a part of a log.
type LogOptions struct {
	// After is the ID of the last line that is not wanted again.
	After int64
	// Limit is how many lines a page may have; 0 leaves it to the server.
	Limit int
}

func (o LogOptions) query() url.Values {
	q := url.Values{}
	setInt(q, "after", o.After)
	setInt(q, "limit", int64(o.Limit))
	return q
}

func buildLogPath(ref string, number int64) []string {
	return []string{"workspaces", ref, "builds", strconv.FormatInt(number, 10), "logs"}
}

func agentLogPath(ref, agent string) []string {
	return []string{"workspaces", ref, "agents", agent, "logs"}
}

// BuildLogs gives a page of a build's log.
func (c *Client) BuildLogs(ctx context.Context, ref string, number int64, o LogOptions) (api.LogPage, error) {
	var out api.LogPage
	return out, c.call(ctx, get(o.query(), buildLogPath(ref, number)...), &out)
}

// AgentLogs gives a page of an agent's log.
func (c *Client) AgentLogs(ctx context.Context, ref, agent string, o LogOptions) (api.LogPage, error) {
	var out api.LogPage
	return out, c.call(ctx, get(o.query(), agentLogPath(ref, agent)...), &out)
}

// FollowBuildLogs calls emit for each line of a build's log after the given
// ID, in order and each once, until the build has ended. It reconnects by
// itself. The error of emit ends it and is returned.
func (c *Client) FollowBuildLogs(ctx context.Context, ref string, number, after int64, emit func(events.Log) error) error {
	return c.follow(ctx, buildLogPath(ref, number), after, emit)
}

// FollowAgentLogs is FollowBuildLogs for an agent's log, until the agent's
// build has been replaced or stopped.
func (c *Client) FollowAgentLogs(ctx context.Context, ref, agent string, after int64, emit func(events.Log) error) error {
	return c.follow(ctx, agentLogPath(ref, agent), after, emit)
}

func (c *Client) follow(ctx context.Context, path []string, after int64, emit func(events.Log) error) error {
	retry := c.reconnectBackoff()
	for attempt := 1; ; attempt++ {
		last, err := c.followOnce(ctx, path, after, emit)
		if last > after {
			after, attempt = last, 1
		}
		if err == nil || !transient(err) {
			return err
		}
		if err := sleep(ctx, retry.delay(attempt)); err != nil {
			return err
		}
	}
}

// followOnce reads JSON lines until the server ends them: a clean end of the
// answer is the end of the log, anything else a broken connection. It returns
// the ID of the last line that emit has had.
func (c *Client) followOnce(ctx context.Context, path []string, after int64, emit func(events.Log) error) (int64, error) {
	conn, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	q := LogOptions{After: after}.query()
	q.Set("follow", "true")
	resp, err := c.send(conn, get(q, path...))
	if err != nil {
		return after, err
	}
	defer resp.Body.Close()

	// The server sends an empty line when it has nothing else to say, so that
	// a connection that has died without a word is found out.
	idle := time.AfterFunc(idleTimeout, func() { cancel(fmt.Errorf("nothing came for %v", idleTimeout)) })
	defer idle.Stop()

	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 4<<10), events.MaxWatchMessage)
	for lines.Scan() {
		idle.Reset(idleTimeout)
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var line events.Log
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return after, &UnreachableError{URL: c.base(), Err: fmt.Errorf("a log line does not parse: %w", err)}
		}
		if line.ID <= after {
			continue
		}
		if err := emit(line); err != nil {
			return after, err
		}
		after = line.ID
	}
	if err := lines.Err(); err != nil {
		if ctx.Err() == nil && conn.Err() != nil {
			err = context.Cause(conn)
		}
		return after, transportError(ctx, c.base(), err)
	}
	return after, nil
}
