package fsm

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// GraphFormats are the formats that WriteGraph knows.
func GraphFormats() []string { return []string{"dot", "mermaid", "json", "table"} }

// WriteGraph writes the state graph, which is the declared table, as Graphviz
// (dot), Mermaid, JSON or a plain text table. No-ops are left out unless all is
// set; unexpected events are shown only with the no-ops.
func WriteGraph(w io.Writer, format string, all bool) error {
	g := newGraph(all)
	switch format {
	case "dot":
		return g.writeDot(w)
	case "mermaid":
		return g.writeMermaid(w)
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(g)
	case "table":
		return g.writeTable(w)
	}
	return fmt.Errorf("unknown graph format %q: expected %s", format, strings.Join(GraphFormats(), ", "))
}

// graph is the table as something to draw.
type graph struct {
	States []graphState `json:"states"`
	Edges  []graphEdge  `json:"edges"`
}

type graphState struct {
	Name    State    `json:"name"`
	Parent  string   `json:"parent,omitempty"`
	Meaning string   `json:"meaning"`
	Entry   []string `json:"entry"`
	Exit    []string `json:"exit"`
}

type graphEdge struct {
	From    State    `json:"from"`
	To      State    `json:"to"`
	Trigger Trigger  `json:"trigger"`
	Guards  []string `json:"guards"`
	Effects []string `json:"effects"`
	Kind    string   `json:"kind"` // move, stay, no-op or unexpected
}

func newGraph(all bool) graph {
	g := graph{}
	for s := range State(numStates) {
		d := states[s]
		gs := graphState{Name: s, Meaning: d.meaning, Entry: names(d.entry), Exit: names(d.exit)}
		if d.parent != noParent {
			gs.Parent = d.parent.String()
		}
		g.States = append(g.States, gs)
		for t := range Trigger(numTriggers) {
			for _, a := range compiledTable[s][t] {
				if e := newEdge(s, t, a); all || e.Kind == "move" || e.Kind == "stay" {
					g.Edges = append(g.Edges, e)
				}
			}
		}
	}
	return g
}

func newEdge(s State, t Trigger, a alt) graphEdge {
	e := graphEdge{From: s, To: a.to, Trigger: t, Guards: []string{}, Effects: names(a.do), Kind: "move"}
	for _, g := range a.when {
		e.Guards = append(e.Guards, g.name)
	}
	switch {
	case a.unexpected:
		e.To, e.Kind = s, "unexpected"
	case a.stay && len(a.do) == 0:
		e.To, e.Kind = s, "no-op"
	case a.stay:
		e.To, e.Kind = s, "stay"
	}
	return e
}

func names(do []*action) []string {
	out := []string{}
	for _, a := range do {
		out = append(out, a.name)
	}
	return out
}

// label is the edge as a sentence: trigger [guards] / effects.
func (e graphEdge) label() string {
	s := e.Trigger.String()
	if len(e.Guards) > 0 {
		s += " [" + strings.Join(e.Guards, " & ") + "]"
	}
	if len(e.Effects) > 0 {
		s += " / " + strings.Join(e.Effects, ", ")
	}
	if e.Kind == "unexpected" {
		s += " !"
	}
	return s
}

// bundle is all edges from one state to another, in the order of the table.
type bundle struct {
	from, to State
	labels   []string
}

// bundles joins the edges between the same two states: a picture with an arrow
// for each alternative cannot be read.
func (g graph) bundles() []bundle {
	var out []bundle
	index := make(map[[2]State]int)
	for _, e := range g.Edges {
		k := [2]State{e.From, e.To}
		i, ok := index[k]
		if !ok {
			i = len(out)
			index[k] = i
			out = append(out, bundle{from: e.From, to: e.To})
		}
		out[i].labels = append(out[i].labels, e.label())
	}
	return out
}

// errWriter keeps the first error, so that drawing code reads as drawing.
type errWriter struct {
	w   io.Writer
	err error
}

func (w *errWriter) printf(format string, args ...any) {
	if w.err == nil {
		_, w.err = fmt.Fprintf(w.w, format, args...)
	}
}

// grouped calls group once for each superstate, in order, with its states, and
// once with no name for those that have none.
func (g graph) grouped(group func(parent string, members []graphState)) {
	byParent := make(map[string][]graphState)
	var order []string
	for _, s := range g.States {
		if _, ok := byParent[s.Parent]; !ok {
			order = append(order, s.Parent)
		}
		byParent[s.Parent] = append(byParent[s.Parent], s)
	}
	for _, p := range order {
		group(p, byParent[p])
	}
}

func (g graph) writeDot(out io.Writer) error {
	w := &errWriter{w: out}
	w.printf("digraph tunneler {\n")
	w.printf("  rankdir=TB; nodesep=0.6; ranksep=1.1; fontname=\"Helvetica\";\n")
	w.printf("  node [shape=box, style=\"rounded,filled\", fillcolor=\"#eef4fb\", color=\"#3b6ea5\", fontname=\"Helvetica\"];\n")
	w.printf("  edge [fontname=\"Helvetica\", fontsize=9, color=\"#56657a\", fontcolor=\"#2a3442\"];\n")
	w.printf("  start [shape=point, width=0.15, color=\"#3b6ea5\"];\n")
	g.grouped(func(parent string, members []graphState) {
		indent := "  "
		if parent != "" {
			w.printf("  subgraph cluster_%s {\n    label=\"%s\"; style=\"rounded,dashed\"; color=\"#8aa3bd\";\n", parent, parent)
			indent = "    "
		}
		for _, s := range members {
			shape := ""
			if s.Name == Exit {
				shape = ", peripheries=2"
			}
			w.printf("%s%s [label=\"%s\", tooltip=\"%s\"%s];\n", indent, s.Name, s.Name, s.Meaning, shape)
		}
		if parent != "" {
			w.printf("  }\n")
		}
	})
	w.printf("  start -> %s;\n", Init)
	for _, b := range g.bundles() {
		// The way up is the spine of the picture; ways back do not bend it.
		layout := ""
		switch {
		case b.to == b.from+1:
			layout = ", weight=20, penwidth=2"
		case b.to < b.from:
			layout = ", constraint=false"
		}
		w.printf("  %s -> %s [label=\"%s\\l\"%s];\n", b.from, b.to, strings.Join(b.labels, "\\l"), layout)
	}
	w.printf("}\n")
	return w.err
}

func (g graph) writeMermaid(out io.Writer) error {
	w := &errWriter{w: out}
	w.printf("stateDiagram-v2\n")
	g.grouped(func(parent string, members []graphState) {
		indent := "  "
		if parent != "" {
			w.printf("  state %s {\n", parent)
			indent = "    "
		}
		for _, s := range members {
			w.printf("%s%s\n", indent, s.Name)
		}
		if parent != "" {
			w.printf("  }\n")
		}
	})
	w.printf("  [*] --> %s\n", Init)
	for _, b := range g.bundles() {
		w.printf("  %s --> %s: %s\n", b.from, b.to, strings.Join(b.labels, "<br/>"))
	}
	w.printf("  %s --> [*]\n", Exit)
	return w.err
}

func (g graph) writeTable(out io.Writer) error {
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	w := &errWriter{w: tw}
	w.printf("STATE\tTRIGGER\tGUARDS\tNEXT\tEFFECTS\n")
	for _, e := range g.Edges {
		w.printf("%s\t%s\t%s\t%s\t%s\n", e.From, e.Trigger, strings.Join(e.Guards, " & "), e.next(), strings.Join(e.Effects, ", "))
	}
	if w.err != nil {
		return w.err
	}
	return tw.Flush()
}

// next is where the edge leads, in the words of the table.
func (e graphEdge) next() string {
	switch e.Kind {
	case "move":
		return e.To.String()
	case "unexpected":
		return "!"
	default:
		return "."
	}
}
