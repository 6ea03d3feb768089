package coordinator

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/token"
)

// heartbeat is the time between two empty lines in a followed log that does not
// grow.
const heartbeat = 15 * time.Second

// logRequest is which part of a log is asked for.
type logRequest struct {
	after  int64
	limit  int
	follow bool
}

func parseLogRequest(r *http.Request) (q logRequest, err error) {
	if q.after, err = queryInt(r, "after", 0, maxNumber); err != nil {
		return q, err
	}
	limit, err := queryInt(r, "limit", 1, maxPage)
	if err != nil {
		return q, err
	}
	if q.limit = int(limit); limit == 0 {
		q.limit = defaultPage
	}
	q.follow, err = queryBool(r, "follow")
	return q, err
}

// succession is logs that are read one after the other, as far as they are
// there: their names, and whether no more lines can come.
type succession func(r *record) (names []string, complete bool)

func (c *Coordinator) getBuildLogs(w http.ResponseWriter, r *http.Request, _ token.Claims) error {
	q, err := parseLogRequest(r)
	if err != nil {
		return err
	}
	rec, revision, b, err := c.requestedBuild(r)
	if err != nil {
		return err
	}
	names := []string{buildLogName(rec.ID, b.Number)}
	return c.serveLogs(w, r, &rec, revision, q, func(r *record) ([]string, bool) {
		return names, r.Build.Number != b.Number || r.Build.Status.Final()
	})
}

func (c *Coordinator) getAgentLogs(w http.ResponseWriter, r *http.Request, _ token.Claims) error {
	q, err := parseLogRequest(r)
	if err != nil {
		return err
	}
	rec, revision, err := c.workspaces.find(r.Context(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	if name := r.PathValue("agent"); name != agentName {
		return notFound("agent", name, []string{agentName})
	}
	var build int64 // the newest that has or had an agent
	if a := rec.agent(agentName); a != nil {
		build = a.Build
	}
	return c.serveLogs(w, r, &rec, revision, q, func(r *record) ([]string, bool) {
		var names []string
		for _, p := range r.Processes {
			if p.Build == build {
				names = append(names, agentLogName(r.ID, p.AgentID))
			}
		}
		return names, r.admits() != build
	})
}

func (c *Coordinator) serveLogs(w http.ResponseWriter, r *http.Request, rec *record, revision uint64, q logRequest, of succession) error {
	if q.follow {
		// The mirror, from which the end of the log is told, must not be older
		// than what the request was answered by.
		if err := c.workspaces.cache.WaitRevision(r.Context(), revision); err != nil {
			return storeError(err)
		}
		return c.followLogs(w, r, rec.ID, q, of)
	}
	names, _ := of(rec)
	page := api.LogPage{Logs: []events.Log{}}
	for _, name := range names {
		// One more than asked for tells whether there are more.
		more, err := c.logs.page(r.Context(), name, q.after, q.limit+1-len(page.Logs))
		if err != nil {
			return err
		}
		page.Logs = append(page.Logs, more...)
		if len(page.Logs) > q.limit {
			page.Logs, page.More = page.Logs[:q.limit], true
			break
		}
	}
	return respond(w, http.StatusOK, page)
}

// followLogs answers with one JSON object a line until the logs are complete. An
// answer that breaks off is broken off for the client to see: it ends without
// its last chunk.
func (c *Coordinator) followLogs(w http.ResponseWriter, r *http.Request, id string, q logRequest, of succession) error {
	ctx, leave, err := c.stream(r, &c.watches, "follower")
	if err != nil {
		return err
	}
	defer leave()
	f := &follower{c: c, w: w, rc: http.NewResponseController(w), enc: json.NewEncoder(w)}
	// A stream has no time-outs but those of each line.
	if err := f.rc.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/jsonl")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if f.flush() != nil || f.run(ctx, id, q.after, of) != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

type follower struct {
	c   *Coordinator
	w   http.ResponseWriter
	rc  *http.ResponseController
	enc *json.Encoder
}

// run returns nil when the logs are complete and sent.
func (f *follower) run(ctx context.Context, id string, after int64, of succession) error {
	changes := f.c.workspaces.cache.Subscribe(id)
	defer changes.Close()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	cursor := logCursor{after: after, at: 1}
	var bell watchBell
	var heard string
	defer func() {
		if bell.stop != nil {
			bell.stop()
		}
	}()
	for {
		rec, ok := f.c.workspaces.cached(id)
		if !ok {
			return nil // erased, long after its end
		}
		names, complete := of(&rec)
		if n := len(names); n > 0 && names[n-1] != heard {
			if bell.stop != nil {
				bell.stop()
			}
			var err error
			if bell.grown, bell.stop, err = f.c.bells.listen(names[n-1]); err != nil {
				return err
			}
			heard = names[n-1]
		}
		if len(names) > 0 {
			err := cursor.drain(ctx, f.c.logs, len(names), func(n int) string { return names[n-1] }, f.line)
			if err != nil {
				return err
			}
			if err := f.flush(); err != nil {
				return err
			}
		}
		if complete {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-changes.C:
			if !ok {
				return errShuttingDown
			}
			changes.Take()
		case <-bell.grown:
		case <-beat.C:
			if _, err := f.w.Write([]byte("\n")); err != nil {
				return err
			}
			if err := f.flush(); err != nil {
				return err
			}
		}
	}
}

func (f *follower) line(l events.Log) error {
	if err := f.deadline(); err != nil {
		return err
	}
	return f.enc.Encode(l)
}

func (f *follower) flush() error {
	if err := f.deadline(); err != nil {
		return err
	}
	return f.rc.Flush()
}

// deadline gives the next write its time.
func (f *follower) deadline() error { return f.rc.SetWriteDeadline(time.Now().Add(sendTimeout)) }
