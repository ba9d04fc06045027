package pipeline

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// keywords are what a mapping may hold, and who reads each.
type keywords map[string]func(*yaml.Node)

// mapping reads a mapping whose keys are known.
func (p *parser) mapping(n *yaml.Node, what string, known keywords) {
	if !p.checkKeys(n, what, slices.Sorted(maps.Keys(known))) {
		return
	}
	for key, value := range pairs(n) {
		if read := known[key.Value]; read != nil {
			read(value)
		}
	}
}

// checkKeys tells whether n is a mapping, and reports keys that aren't known.
func (p *parser) checkKeys(n *yaml.Node, what string, known []string) bool {
	if n.Kind != yaml.MappingNode {
		p.errorf(n, "%s: found %s, expected a mapping with %s", what, kind(n), strings.Join(known, ", "))
		return false
	}
	for key := range pairs(n) {
		if !slices.Contains(known, key.Value) {
			p.errorf(key, "%s: unknown keyword %q, expected one of %s", what, key.Value, strings.Join(known, ", "))
		}
	}
	return true
}

// str reads a string, or a number as it is written.
func (p *parser) str(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && (n.Tag == "!!str" || n.Tag == "!!int" || n.Tag == "!!float") {
		return n.Value
	}
	p.errorf(n, "found %s, expected a string", kind(n))
	return ""
}

// oneOf reads a string that must be one of some.
func (p *parser) oneOf(n *yaml.Node, options ...string) string {
	s := p.str(n)
	if !slices.Contains(options, s) {
		p.errorf(n, "found %q, expected one of %s", s, strings.Join(options, ", "))
	}
	return s
}

// strings reads a string or a list of them; lists in it, as anchors make them,
// are taken apart. It never returns nil.
func (p *parser) strings(n *yaml.Node) []string {
	if n.Kind != yaml.SequenceNode {
		return []string{p.str(n)}
	}
	list := []string{}
	for _, item := range n.Content {
		list = append(list, p.strings(item)...)
	}
	return list
}

func (p *parser) boolean(n *yaml.Node) bool {
	var b bool
	if err := n.Decode(&b); err != nil {
		p.errorf(n, "found %s, expected true or false", kind(n))
	}
	return b
}

// pairs of a mapping in the order of the file.
func pairs(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(*yaml.Node, *yaml.Node) bool) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

// index of a key among a mapping's contents, or -1.
func index(n *yaml.Node, name string) int {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return i
		}
	}
	return -1
}

func find(n *yaml.Node, name string) (key, value *yaml.Node) {
	if i := index(n, name); i >= 0 {
		return n.Content[i], n.Content[i+1]
	}
	return nil, nil
}

func drop(n *yaml.Node, name string) {
	if i := index(n, name); i >= 0 {
		n.Content = slices.Delete(n.Content, i, i+2)
	}
}

// merge lays over on under as extends does: mappings key by key and deep, all
// else replaced.
func merge(under, over *yaml.Node) *yaml.Node {
	if under.Kind != yaml.MappingNode || over.Kind != yaml.MappingNode {
		return over
	}
	result := &yaml.Node{Kind: yaml.MappingNode, Line: over.Line, Content: slices.Clone(under.Content)}
	for key, value := range pairs(over) {
		i := index(result, key.Value)
		if i < 0 {
			result.Content = append(result.Content, key, value)
			continue
		}
		result.Content[i], result.Content[i+1] = key, merge(result.Content[i+1], value)
	}
	return result
}

// resolve replaces aliases by what they stand for and merge keys by their
// contents, which are laid under the mapping's own.
func (p *parser) resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return p.resolve(n.Alias)
	}
	if n.Kind == yaml.ScalarNode {
		if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
			p.errorf(n, "tag %s is not supported", n.Tag)
		}
		return n
	}
	if strings.HasPrefix(n.Tag, "!reference") {
		p.errorf(n, "tag !reference is not supported")
	}
	result := &yaml.Node{Kind: n.Kind, Tag: n.Tag, Line: n.Line}
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			result.Content = append(result.Content, p.resolve(item))
		}
		return result
	}
	p.resolveMapping(n, result)
	return result
}

func (p *parser) resolveMapping(n, result *yaml.Node) {
	var own []*yaml.Node
	for key, value := range pairs(n) {
		value = p.resolve(value)
		if key.Tag != "!!merge" {
			own = append(own, key, value)
			continue
		}
		sources := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			sources = value.Content
		}
		for _, source := range sources {
			addMissing(result, source)
		}
	}
	for i := 0; i < len(own); i += 2 {
		drop(result, own[i].Value)
	}
	result.Content = append(result.Content, own...)
}

// addMissing adds the pairs that n has no key for.
func addMissing(n, source *yaml.Node) {
	for key, value := range pairs(source) {
		if index(n, key.Value) < 0 {
			n.Content = append(n.Content, key, value)
		}
	}
}

// kind names what stands in the file.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!bool":
		return n.Value + ", which is a truth value"
	default:
		return "\"" + n.Value + "\""
	}
}
