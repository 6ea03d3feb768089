package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatAWorkspaceMayBeCalled(t *testing.T) {
	for _, name := range []string{"a", "demo", "demo-2", "0", strings.Repeat("a", MaxName)} {
		require.NoError(t, CheckName(name), name)
	}
	for _, name := range []string{"", "-", "a-", "-a", "A", "a_b", "a.b", "a b", "ä", "ws_abc", strings.Repeat("a", MaxName+1)} {
		require.Error(t, CheckName(name), name)
	}
}
