package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/tunneler/tunneler/events"
	"github.com/tunneler/tunneler/transport/channel"
)

// channelPath is where a coordinator serves the coordination channel.
const channelPath = "/api/v1/agent-channel/ws"

// The backoff towards a server on this machine, which one agent cannot crowd.
const (
	loopbackFloor = 100 * time.Millisecond
	loopbackCeil  = 2 * time.Second
)

func (a *agent) newChannel() (*channel.Client, error) {
	o := channel.Options{
		URL: func(context.Context) (string, error) {
			server, err := a.cfg.serverURL()
			return server + channelPath, err
		},
		Token: func(_ context.Context, refused bool) (string, error) {
			if refused {
				// Somebody may have put a new one there.
				if err := a.creds.load(); err != nil {
					return "", err
				}
			}
			return a.creds.current(), nil
		},
		Hello:       events.SessionHello{AgentID: a.id, Version: a.cfg.Version},
		Handler:     a.hear,
		Logger:      a.cfg.Logger.Named("channel"),
		OutboxLimit: 64,
	}
	if server, err := a.cfg.serverURL(); err == nil && onLoopback(server) {
		o.BackoffFloor, o.BackoffCeil = loopbackFloor, loopbackCeil
	}
	return channel.New(o)
}

// talk keeps the channel open until ctx ends or Shutdown is called. When the
// coordinator will not have us any more it ends the agent.
func (a *agent) talk(ctx context.Context, end context.CancelCauseFunc) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.background.Go(func() { a.journal.send(ctx, a.channel.Send) })
	a.background.Go(func() { a.report(ctx) })
	if err := a.channel.Run(ctx); err != nil && ctx.Err() == nil {
		end(whyEnded(err))
	}
}

// whyEnded is the agent's word for the end of the channel.
func whyEnded(err error) error {
	if errors.Is(err, channel.ErrUnauthorized) {
		return fmt.Errorf("%w: %w", ErrUnauthorized, err)
	}
	if rejected, ok := errors.AsType[*channel.RejectError](err); ok {
		switch rejected.Reject.Code {
		case events.RejectBuildOver, events.RejectReplaced:
			return fmt.Errorf("%w: %w", ErrReplaced, err)
		default:
		}
	}
	return fmt.Errorf("the coordinator is lost: %w", err)
}

// report sends the gauges now and then; the next report makes up for a lost one.
func (a *agent) report(ctx context.Context) {
	for sleep(ctx, statsInterval) {
		a.channel.TrySend(a.tunnels.stats())
	}
}

// hear handles what the coordinator says. It must not wait.
func (a *agent) hear(ctx context.Context, m events.ChannelMessage) {
	switch m := m.(type) {
	case *events.ConnectionRequest:
		a.background.Go(func() {
			offset, _ := a.channel.ClockOffset() // zero as long as it is not known
			if err := a.channel.Send(ctx, a.tunnels.expect(m, offset)); err != nil {
				a.cfg.Logger.Debug("a connection request could not be answered", zap.Error(err))
			}
		})
	case *events.AgentLogsAck:
		// The channel keeps count.
	default:
		a.cfg.Logger.Debug("message is ignored", zap.String("type", m.Type()))
	}
}
