package coordinator

import (
	"context"

	"github.com/tunneler/tunneler/events"
)

const (
	// logPageSize is how many lines are read at a time.
	logPageSize = 500
	// maxLookback bounds how many logs back a reader looks for where it was.
	maxLookback = 32
)

// logReader reads logs by name.
type logReader interface {
	// page gives lines of a log after an ID, in order; none at its end.
	page(ctx context.Context, name string, after int64, limit int) ([]events.Log, error)
	// lastID is the ID of a log's last line, 0 if it has none.
	lastID(ctx context.Context, name string) (int64, error)
}

// logCursor walks through a succession of logs, such as those of a workspace's
// builds, as if they were one. IDs grow along it: a log gets no more lines once
// the next one has its first.
type logCursor struct {
	// after is the ID of the last line that was read, or before the first that
	// is wanted.
	after int64
	// at is the number of the log being read, from 1, and name its name; 0 and
	// empty before the first.
	at   int
	name string
}

// drain calls emit for each line that there is up to now, up to log number last.
// A log that grows while it is read does not keep it for ever.
func (c *logCursor) drain(ctx context.Context, logs logReader, last int, name func(int) string, emit func(events.Log) error) error {
	if c.at == 0 {
		first, err := c.begin(ctx, logs, last, name)
		if err != nil {
			return err
		}
		c.at = first
	}
	for ; ; c.at++ {
		c.name = name(c.at)
		if err := c.drainOne(ctx, logs, emit); err != nil {
			return err
		}
		if c.at >= last {
			return nil
		}
	}
}

// begin finds the log to begin with: the last one, or if lines were read before,
// the one that has the next.
func (c *logCursor) begin(ctx context.Context, logs logReader, last int, name func(int) string) (int, error) {
	first := last
	if c.after == 0 {
		return first, nil
	}
	for n := last - 1; n > 0 && n >= last-maxLookback; n-- {
		id, err := logs.lastID(ctx, name(n))
		switch {
		case err != nil:
			return 0, err
		case id > c.after:
			first = n
		case id > 0:
			return first, nil
		}
	}
	return first, nil
}

func (c *logCursor) drainOne(ctx context.Context, logs logReader, emit func(events.Log) error) error {
	end, err := logs.lastID(ctx, c.name)
	if err != nil {
		return err
	}
	for c.after < end {
		page, err := logs.page(ctx, c.name, c.after, logPageSize)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return nil // dropped in the meantime
		}
		for _, l := range page {
			c.after = l.ID
			if err := emit(l); err != nil {
				return err
			}
		}
	}
	return nil
}
