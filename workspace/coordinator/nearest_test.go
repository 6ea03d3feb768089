package coordinator

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestWhatAWrongNameMayHaveMeant(t *testing.T) {
	names := []string{"demo", "demo2", "dome", "web", "web-server", "database", "data-base"}
	for name, want := range map[string][]string{
		"demp":      {"demo", "demo2", "dome"},
		"deom":      {"demo", "demo2", "dome"},
		"webserver": {"web-server"},
		"databse":   {"database", "data-base"},
		"zzzzzz":    nil,
		"":          nil,
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, want, nearest(name, names)) })
	}
}

func TestADistanceIsADistance(t *testing.T) {
	word := rapid.StringMatching(`[ab]{0,6}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		d := distance(a, b)
		if d != distance(b, a) || (d == 0) != (a == b) || d > max(len(a), len(b)) || d < abs(len(a)-len(b)) {
			t.Fatalf("distance(%q, %q) is %d", a, b, d)
		}
	})
}
