//go:build !linux

package agent

import "context"

// adopt needs a subreaper, which only Linux has; elsewhere the process groups
// have to do.
func (f *family) adopt(ctx context.Context) { <-ctx.Done() }

// leave lets what a process has left behind live on until end.
func (f *family) leave(m *member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = append(f.left, m)
}

// end kills what was left behind, and lets nothing new begin.
func (f *family) end(context.Context) error {
	f.close()
	for _, m := range f.left {
		if groupLives(m.cmd.Process.Pid) {
			m.killGroup()
		}
	}
	f.closeOutputs()
	return nil
}
