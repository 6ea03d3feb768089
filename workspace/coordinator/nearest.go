package coordinator

import (
	"cmp"
	"slices"
)

// maxNearest is how many names an answer offers for one that is not there.
const maxNearest = 3

// nearest are the names that somebody who wrote name may have meant, best
// first: at most a third of its characters would have to be changed.
func nearest(name string, names []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	limit := max(2, len(name)/3)
	var found []candidate
	for _, n := range names {
		if abs(len(n)-len(name)) > limit {
			continue
		}
		if d := distance(name, n); d <= limit && d < len(name) {
			found = append(found, candidate{n, d})
		}
	}
	slices.SortFunc(found, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.name, b.name))
	})
	var best []string
	for _, c := range found[:min(len(found), maxNearest)] {
		best = append(best, c.name)
	}
	return best
}

func abs(n int) int { return max(n, -n) }

// distance is the number of characters to insert, remove, replace or swap with
// their neighbour that makes a into b (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
