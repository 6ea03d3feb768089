//go:build !linux

package agent

import "context"

// adopt needs a subreaper, which only Linux has; elsewhere the process groups
// have to do.
func (f *family) adopt(ctx context.Context) { <-ctx.Done() }

func (f *family) end(context.Context) {
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
}
