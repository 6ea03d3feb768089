package fsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var updateDocs = flag.Bool("update.docs", false, "rewrite docs/states.md")

// TestDocsAreTheTable fails when the published pages are not what the table
// says now.
func TestDocsAreTheTable(t *testing.T) {
	var page bytes.Buffer
	require.NoError(t, WritePage(&page))
	if *updateDocs {
		require.NoError(t, os.WriteFile("../docs/states.md", page.Bytes(), 0o644))
	}
	have, err := os.ReadFile("../docs/states.md")
	require.NoError(t, err)
	require.Equal(t, page.String(), string(have), "docs/states.md is stale: run `make docs`")

	svg, err := os.ReadFile("../docs/states.svg")
	require.NoError(t, err)
	var dot bytes.Buffer
	require.NoError(t, WriteGraph(&dot, "dot", false))
	mark := fmt.Sprintf("<!-- drawn from graph %x -->", sha256.Sum256(dot.Bytes()))
	require.True(t, strings.HasSuffix(strings.TrimSpace(string(svg)), mark), "docs/states.svg is stale: run `make docs`")
}

// TestGraphsShowEveryEdge holds the formats against the table itself.
func TestGraphsShowEveryEdge(t *testing.T) {
	for _, all := range []bool{false, true} {
		want := make(map[string]int)
		for s := range State(numStates) {
			for tr := range Trigger(numTriggers) {
				for _, a := range compiledTable[s][tr] {
					if all || !a.unexpected && (!a.stay || len(a.do) > 0) {
						want[s.String()+" "+tr.String()]++
					}
				}
			}
		}
		total := 0
		for _, n := range want {
			total += n
		}

		var js bytes.Buffer
		require.NoError(t, WriteGraph(&js, "json", all))
		var g struct {
			States []struct{ Name string }
			Edges  []struct{ From, To, Trigger, Kind string }
		}
		require.NoError(t, json.Unmarshal(js.Bytes(), &g))
		require.Len(t, g.States, numStates)
		got := make(map[string]int)
		for _, e := range g.Edges {
			got[e.From+" "+e.Trigger]++
			require.Equal(t, e.Kind == "move", e.From != e.To, "%+v", e)
		}
		require.Equal(t, want, got)

		var text bytes.Buffer
		require.NoError(t, WriteGraph(&text, "table", all))
		require.Equal(t, total+1, strings.Count(text.String(), "\n"), "one line for each alternative, and a head")

		var dot, mermaid bytes.Buffer
		require.NoError(t, WriteGraph(&dot, "dot", all))
		require.NoError(t, WriteGraph(&mermaid, "mermaid", all))
		for _, e := range newGraph(all).Edges {
			require.Contains(t, dot.String(), e.label())
			require.Contains(t, mermaid.String(), e.label())
		}
		for _, parent := range []State{WaitForWorkspace, Shutdown} {
			require.Contains(t, dot.String(), "cluster_"+parent.String())
			require.Contains(t, mermaid.String(), "state "+parent.String()+" {")
		}
	}
}

func TestAnUnknownGraphFormatIsRefused(t *testing.T) {
	require.EqualError(t, WriteGraph(&bytes.Buffer{}, "png", false), `unknown graph format "png": expected dot, mermaid, json, table`)
}
