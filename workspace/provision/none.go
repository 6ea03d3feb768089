package provision

import (
	"context"
	"time"

	"github.com/tunneler/tunneler/events"
)

// None is the provisioner of workspaces whose agent is started by someone else, usually on another host. Its zero
// value is ready for use.
type None struct{}

var _ Provisioner = None{}

// Start implements Provisioner. It does nothing but say so.
func (None) Start(ctx context.Context, spec Spec, out func(Line)) (*Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if out != nil {
		out(Line{
			Time: time.Now(), Level: events.LogInfo, Source: SourceProvisioner,
			Text: "the agent of this workspace is started by someone else: waiting for it to connect",
		})
	}
	return &Instance{ref: spec.Ref()}, nil
}

// Stop implements Provisioner. It does nothing.
func (None) Stop(context.Context, string, func(Line)) error { return nil }

// Recover implements Provisioner. There is nothing to recover.
func (None) Recover(context.Context, Resolve) (Recovered, error) { return Recovered{}, nil }

// Close implements Provisioner. It does nothing.
func (None) Close() error { return nil }
