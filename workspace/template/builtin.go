package template

import (
	"embed"
	"fmt"
	"path"
)

//go:embed builtin/*.yaml
var builtin embed.FS

// Builtin returns the templates that come with the program, by name in ascending order. The caller owns them.
func Builtin() []Template {
	entries, err := builtin.ReadDir("builtin")
	if err != nil {
		panic(fmt.Sprintf("template: built-in templates: %v", err))
	}
	templates := make([]Template, 0, len(entries))
	for _, entry := range entries {
		file := path.Join("builtin", entry.Name())
		data, err := builtin.ReadFile(file)
		if err != nil {
			panic(fmt.Sprintf("template: built-in templates: %v", err))
		}
		t, err := Parse(file, data)
		if err != nil {
			panic(fmt.Sprintf("template: built-in templates: %v", err))
		}
		templates = append(templates, *t)
	}
	return templates
}
