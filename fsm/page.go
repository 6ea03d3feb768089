package fsm

import (
	"fmt"
	"io"
	"strings"
)

// WritePage writes docs/states.md: the states, the graph and the whole table,
// no-ops included, as Markdown.
func WritePage(out io.Writer) error {
	w := &errWriter{w: out}
	w.printf("<!-- Generated from fsm/table.go by `make docs`; do not edit. -->\n\n")
	w.printf("# States of the tunneler\n\n")
	w.printf("The state machine of `tunnel up`, exactly as the program runs it: this page is written from the\n")
	w.printf("declared table in `fsm/table.go`. `tunnel graph` prints the same as Graphviz, Mermaid, JSON or text;\n")
	w.printf("[states.svg](states.svg) is the drawing.\n\n")
	w.printf("| state | within | meaning | on entry | on exit |\n| --- | --- | --- | --- | --- |\n")
	all := newGraph(true)
	for _, s := range all.States {
		w.printf("| %s | %s | %s | %s | %s |\n", s.Name, s.Parent, s.Meaning, strings.Join(s.Entry, ", "), strings.Join(s.Exit, ", "))
	}
	w.printf("\n## Graph\n\nNo-ops are left out. An edge reads `trigger [guards] / effects`.\n\n```mermaid\n")
	if w.err != nil {
		return w.err
	}
	if err := newGraph(false).writeMermaid(out); err != nil {
		return err
	}
	w.printf("```\n\n## Table\n\n")
	w.printf("Alternatives are tried in order; the first whose guards all hold is taken. `.` stays, and without an\n")
	w.printf("effect does nothing; `!` is unexpected: logged, counted, and what was handed over is closed. `exit`\n")
	w.printf("ignores everything.\n")
	for t := range Trigger(numTriggers) {
		w.printf("\n### %s\n\n| state | guards | next | effects |\n| --- | --- | --- | --- |\n", t)
		for _, group := range sameCells(t) {
			for i, a := range compiledTable[group[0]][t] {
				e := newEdge(group[0], t, a)
				name := ""
				if i == 0 {
					name = joinStates(group)
				}
				w.printf("| %s | %s | %s | %s |\n", name, strings.Join(e.Guards, " & "), e.next(), strings.Join(e.Effects, ", "))
			}
		}
	}
	return w.err
}

// sameCells groups the states but exit that treat a trigger alike.
func sameCells(t Trigger) [][]State {
	var groups [][]State
	index := make(map[string]int)
	for s := range Exit {
		key := ""
		for _, a := range compiledTable[s][t] {
			e := newEdge(s, t, a)
			key += fmt.Sprint(e.next(), e.Guards, e.Effects)
		}
		i, ok := index[key]
		if !ok {
			i = len(groups)
			index[key] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], s)
	}
	return groups
}

func joinStates(ss []State) string {
	var names []string
	for _, s := range ss {
		names = append(names, s.String())
	}
	return strings.Join(names, ", ")
}
