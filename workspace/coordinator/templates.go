package coordinator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"go.uber.org/zap"

	"github.com/tunneler/tunneler/workspace/api"
	"github.com/tunneler/tunneler/workspace/template"
	"github.com/tunneler/tunneler/workspace/token"
)

// catalogue finds the templates that workspaces can be made from: the built-in
// ones and the *.yaml and *.yml files of a directory, which win over a built-in
// one of the same name. The directory is read anew each time; it is an
// operator's, small and on a local disk.
type catalogue struct {
	dir string
	log *zap.Logger
}

// entry is one template of the catalogue.
type entry struct {
	template.Template
	// definition is its text; empty for a built-in one that has to be rendered.
	definition string
	builtin    bool
}

func (e entry) info() api.TemplateInfo {
	return api.TemplateInfo{
		Name: e.Name, Description: e.Description, Provisioner: string(e.Provisioner), Builtin: e.builtin,
	}
}

// text is the template as YAML.
func (e entry) text() (string, error) {
	if e.definition != "" {
		return e.definition, nil
	}
	b, err := json.Marshal(e.Template)
	if err == nil {
		b, err = yaml.JSONToYAML(b)
	}
	if err != nil {
		return "", fmt.Errorf("render template %s: %w", e.Name, err)
	}
	return string(b), nil
}

// all lists the templates by name.
func (c catalogue) all() ([]entry, error) {
	found := make(map[string]entry)
	for _, t := range template.Builtin() {
		found[t.Name] = entry{Template: t, builtin: true}
	}
	own, err := c.own()
	if err != nil {
		return nil, err
	}
	for _, e := range own {
		found[e.Name] = e
	}
	list := make([]entry, 0, len(found))
	for _, e := range found {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// own reads the directory. A file that is no template is left out and logged:
// one mistake must not take the others away.
func (c catalogue) own() ([]entry, error) {
	if c.dir == "" {
		return nil, nil
	}
	files, err := os.ReadDir(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the template directory: %w", err)
	}
	var list []entry
	for _, f := range files {
		if ext := filepath.Ext(f.Name()); ext != ".yaml" && ext != ".yml" || !f.Type().IsRegular() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(c.dir, f.Name()))
		if err == nil {
			var t *template.Template
			if t, err = template.Parse(f.Name(), data); err == nil {
				list = append(list, entry{Template: *t, definition: string(data)})
				continue
			}
		}
		c.log.Warn("a file of the template directory is left out", zap.Error(err))
	}
	return list, nil
}

// find gives the template of that name, or an *api.Error with the nearest names.
func (c catalogue) find(name string) (entry, error) {
	list, err := c.all()
	if err != nil {
		return entry{}, err
	}
	names := make([]string, len(list))
	for i, e := range list {
		if e.Name == name {
			return e, nil
		}
		names[i] = e.Name
	}
	return entry{}, notFound("template", name, names)
}

func notFound(kind, name string, names []string) *api.Error {
	name = cut(name, api.MaxName)
	return &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("there is no %s %q", kind, name), Nearest: nearest(name, names)}
}

func (c *Coordinator) listTemplates(w http.ResponseWriter, _ *http.Request, _ token.Claims) error {
	list, err := c.templates.all()
	if err != nil {
		return err
	}
	out := api.TemplateList{Templates: make([]api.TemplateInfo, len(list))}
	for i, e := range list {
		out.Templates[i] = e.info()
	}
	return respond(w, http.StatusOK, out)
}

func (c *Coordinator) getTemplate(w http.ResponseWriter, r *http.Request, _ token.Claims) error {
	e, err := c.templates.find(r.PathValue("name"))
	if err != nil {
		return err
	}
	out := e.info()
	if out.Definition, err = e.text(); err != nil {
		return err
	}
	return respond(w, http.StatusOK, out)
}

func (c *Coordinator) checkTemplate(w http.ResponseWriter, r *http.Request, _ token.Claims) error {
	var in api.CheckTemplate
	if err := decode(r, &in); err != nil {
		return err
	}
	t, err := template.Parse(fileName(in.File), []byte(in.Definition))
	var out api.TemplateCheck
	if problem := templateProblem(err); problem != nil {
		out.Problem = problem
	} else if err != nil {
		return err
	} else {
		info := entry{Template: *t}.info()
		out.Template = &info
	}
	return respond(w, http.StatusOK, out)
}

// fileName is what a template that came without a name is called.
func fileName(name string) string {
	if name == "" {
		return "template"
	}
	return cut(name, 255)
}

// templateProblem is nil if err is no error in a template.
func templateProblem(err error) *api.TemplateProblem {
	var syntax *template.SyntaxError
	if !errors.As(err, &syntax) {
		return nil
	}
	return &api.TemplateProblem{File: syntax.File, Line: syntax.Line, Column: syntax.Column, Message: syntax.Msg}
}
