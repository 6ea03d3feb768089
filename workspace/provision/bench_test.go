package provision

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkStartStop is what the provisioner itself adds to the start and the stop of a workspace.
func BenchmarkStartStop(b *testing.B) {
	p := testProcess(b)
	spec := shellSpec(b.TempDir(), "exec sleep 1000")
	for b.Loop() {
		_, err := p.Start(b.Context(), spec, nil)
		require.NoError(b, err)
		require.NoError(b, p.Stop(b.Context(), "ws-1", nil))
	}
}
