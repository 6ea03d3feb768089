package template

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits on what a template may hold; whoever sends one is not trusted.
const (
	// MaxSize is the longest template, in bytes.
	MaxSize = 256 << 10

	// maxTokens bounds the parser's work, which grows faster than its input.
	maxTokens = 16 << 10
	// maxDepth bounds nested brackets; a template needs 4.
	maxDepth = 16
	// maxText is the longest single string, in bytes: one argument or variable of a process is at most 128 KiB on
	// Linux.
	maxText = 64 << 10
	// maxEntries bounds every list and mapping.
	maxEntries = 256
)

// invalidYAML is the message for what is no YAML at all.
const invalidYAML = "not valid YAML: %s, expected key: value lines of equal indentation, with quotes and brackets closed"

// Parse reads and checks one template. name is used in errors only, and is usually the file's name. Every error is
// a *SyntaxError.
//
// Decoding is strict: unknown and repeated keys, values of another type and more than one document are errors. So
// are anchors, aliases, tags and merge keys, which no template needs.
func Parse(name string, data []byte) (*Template, error) {
	d := &decoder{file: name}
	root := d.parse(data)
	if d.err != nil {
		return nil, d.err
	}
	t := d.template(root)
	if d.err != nil {
		return nil, d.err
	}
	return t, nil
}

// parse turns data into the tree of its only document.
func (d *decoder) parse(data []byte) ast.Node {
	if len(data) > MaxSize {
		d.failAt(1, 1, "the template has %d bytes, expected at most %d (256 KiB)", len(data), MaxSize)
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if i := invalidUTF8(data); i >= 0 {
		line := 1 + bytes.Count(data[:i], []byte("\n"))
		column := 1 + utf8.RuneCount(data[bytes.LastIndexByte(data[:i], '\n')+1:i])
		d.failAt(line, column, "byte 0x%02x is not UTF-8, expected a UTF-8 text file", data[i])
		return nil
	}
	tokens := lexer.Tokenize(string(data))
	if d.checkTokens(tokens); d.err != nil {
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.failYAML(err)
		return nil
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		d.failAt(1, 1, "the template is empty, expected at least name: NAME")
		return nil
	}
	return file.Docs[0].Body
}

// checkTokens refuses what templates have no use for before the parser builds anything of it.
func (d *decoder) checkTokens(tokens token.Tokens) {
	depth, content, ended := 0, false, false
	for i, tk := range tokens {
		if i >= maxTokens {
			d.failToken(tk, "the template has more values and signs than %d, expected fewer", maxTokens)
			return
		}
		if tk.Type == token.CommentType {
			continue
		}
		if ended || (content && tk.Type == token.DocumentHeaderType) {
			d.failToken(tk, "a second document begins here, expected one template in a file")
			return
		}
		content = true
		switch tk.Type {
		case token.InvalidType:
			d.failToken(tk, invalidYAML, oneLine(tk.Error))
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			d.failToken(tk, "anchors, aliases and merge keys are not supported, expected the value written out")
		case token.TagType:
			d.failToken(tk, "tags are not supported, expected a plain value")
		case token.DirectiveType:
			d.failToken(tk, "directives are not supported, expected key: value")
		case token.MappingKeyType:
			d.failToken(tk, "complex keys are not supported, expected key: value")
		case token.DocumentEndType:
			ended = true
		case token.MappingStartType, token.SequenceStartType:
			if depth++; depth > maxDepth {
				d.failToken(tk, "brackets are nested too deep, expected at most %d levels", maxDepth)
			}
		case token.MappingEndType, token.SequenceEndType:
			depth--
		default:
		}
		if d.err != nil {
			return
		}
	}
}

// failYAML records an error of the YAML parser.
func (d *decoder) failYAML(err error) {
	var at yaml.Error
	if !errors.As(err, &at) || at.GetToken() == nil {
		d.failAt(1, 1, invalidYAML, oneLine(err.Error()))
		return
	}
	d.failToken(at.GetToken(), invalidYAML, oneLine(at.GetMessage()))
}

func (d *decoder) failToken(tk *token.Token, format string, args ...any) {
	line, column := 1, 1
	if tk.Position != nil {
		line, column = tk.Position.Line, tk.Position.Column
	}
	d.failAt(line, column, format, args...)
}

// failAt records the first error; later ones are usually its consequences.
func (d *decoder) failAt(line, column int, format string, args ...any) {
	if d.err == nil {
		d.err = &SyntaxError{
			File: d.file, Line: max(line, 1), Column: max(column, 1), Msg: fmt.Sprintf(format, args...),
		}
	}
}

// invalidUTF8 is the offset of the first byte that is not UTF-8, or -1.
func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}
