package template

import (
	"fmt"
	"strings"
)

// A SyntaxError says where a template is wrong and what was expected there.
type SyntaxError struct {
	// File is the name that was given to Parse.
	File string
	// Line and Column count from 1; Column counts characters.
	Line, Column int
	// Msg is one line: what is wrong and what was expected.
	Msg string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg)
}

// oneLine makes text from elsewhere fit for an error message.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// nearest is the candidate that a user who wrote word most likely meant, or "".
func nearest(word string, candidates []string) string {
	best, bestDistance := "", max(2, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(word, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two strings, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
