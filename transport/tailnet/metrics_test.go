package tailnet_test

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/transport/tailnet"
)

func TestEveryCounterHasANameAndAHelp(t *testing.T) {
	var metrics tailnet.Metrics
	names := map[string]bool{}
	for counter, value := range metrics.All() {
		require.Zero(t, value)
		require.Regexp(t, regexp.MustCompile(`^[a-z_]+$`), counter.String())
		require.False(t, names[counter.String()])
		names[counter.String()] = true
		require.Regexp(t, regexp.MustCompile(`^[A-Z].*\.$`), counter.Help(), counter.String())
	}
	require.NotEmpty(t, names)
	for counter := range metrics.All() {
		require.Equal(t, tailnet.SessionsUnknown, counter)
		break
	}
	var none *tailnet.Metrics
	require.Zero(t, none.Get(tailnet.ConnsLost))
}
