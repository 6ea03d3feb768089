package channel

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/tunneler/tunneler/events"
)

// Request asks the agent for a connection and waits for its result. A request
// without an id is given one. The error is a *RefusedError if the agent could
// not do it, ErrBusy if too many requests are waiting, ErrClosed if the
// connection ends first, or ctx's.
func (c *ServerConn) Request(ctx context.Context, r *events.ConnectionRequest) (*events.ConnectionResult, error) {
	request := *r
	if request.RequestID == "" {
		request.RequestID = uuid.NewString()
	}
	answer := make(chan *events.ConnectionResult, 1)
	if err := c.await(request.RequestID, answer); err != nil {
		return nil, err
	}
	defer c.forget(request.RequestID)
	if err := c.Send(ctx, &request); err != nil {
		return nil, err
	}
	select {
	case result := <-answer:
		if result.Error != "" {
			return nil, &RefusedError{Reason: result.Error}
		}
		return result, nil
	case <-c.ended:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *ServerConn) await(id string, answer chan *events.ConnectionResult) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, taken := c.waiting[id]; taken {
		return fmt.Errorf("request %s is waiting for its answer already", id)
	}
	if len(c.waiting) >= c.opts.MaxRequests {
		c.opts.Metrics.busy.Add(1)
		return fmt.Errorf("%w: %d", ErrBusy, len(c.waiting))
	}
	c.waiting[id] = answer
	return nil
}

func (c *ServerConn) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// answer hands a result to whoever waits for it.
func (c *ServerConn) answer(result *events.ConnectionResult) {
	c.mu.Lock()
	defer c.mu.Unlock()
	waiting, ok := c.waiting[result.RequestID]
	if !ok {
		c.opts.Metrics.lateResults.Add(1)
		return
	}
	delete(c.waiting, result.RequestID) // the first answer counts
	waiting <- result
}
