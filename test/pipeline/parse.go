package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parser collects every mistake, each with file and line.
type parser struct {
	file string
	errs []error
}

// errorf reports a mistake once, however many jobs inherit it.
func (p *parser) errorf(n *yaml.Node, format string, args ...any) {
	err := fmt.Errorf("%s:%d: %s", p.file, n.Line, fmt.Sprintf(format, args...))
	if !slices.ContainsFunc(p.errs, func(e error) bool { return e.Error() == err.Error() }) {
		p.errs = append(p.errs, err)
	}
}

// defaultStages are those of a file without stages.
var defaultStages = []string{"build", "test", "deploy"}

// jobDefaults are the keywords that jobs inherit, from default or from the top
// of the file.
var jobDefaults = []string{
	"image", "services", "before_script", "after_script", "cache",
	"artifacts", "id_tokens", "interruptible", "retry", "tags", "timeout",
}

// topDefaults are those of them that may stand at the top of the file.
var topDefaults = jobDefaults[:5]

// Parse reads a .gitlab-ci.yml. file is its name in errors; all mistakes are
// reported at once.
func Parse(file string, content []byte) (*Config, error) {
	p := &parser{file: file}
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if document.Kind == 0 {
		return nil, fmt.Errorf("%s: is empty", file)
	}
	root := p.resolve(document.Content[0])
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: found %s, expected keywords and jobs", file, root.Line, kind(root))
	}
	config := p.config(root)
	return config, errors.Join(p.errs...)
}

func (p *parser) config(root *yaml.Node) *Config {
	config := &Config{Stages: defaultStages}
	defaults := &yaml.Node{Kind: yaml.MappingNode, Line: root.Line}
	jobs := &yaml.Node{Kind: yaml.MappingNode}
	for key, value := range pairs(root) {
		switch name := key.Value; {
		case name == "stages":
			config.Stages = p.strings(value)
		case name == "variables":
			config.Variables = p.variables(value)
		case name == "workflow":
			p.mapping(value, "workflow", keywords{"rules": func(n *yaml.Node) { config.Workflow = p.rules(n) }})
		case name == "default":
			p.checkKeys(value, "default", jobDefaults)
			defaults = merge(defaults, value)
		case slices.Contains(topDefaults, name):
			defaults = merge(defaults, &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{key, value}})
		case name == "include" || name == "spec" || name == "types":
			p.errorf(key, "%s is not supported", name)
		default:
			jobs.Content = append(jobs.Content, key, value)
		}
	}
	// The first and the last stage are always there.
	config.Stages = append(append([]string{".pre"}, config.Stages...), ".post")
	p.jobs(config, jobs, defaults)
	return config
}

func (p *parser) jobs(config *Config, jobs, defaults *yaml.Node) {
	for key, value := range pairs(jobs) {
		body := p.extended(jobs, key, value, nil)
		if strings.HasPrefix(key.Value, ".") || body == nil {
			continue
		}
		addMissing(body, defaults)
		job := p.job(key, body)
		if !slices.Contains(config.Stages, job.Stage) {
			p.errorf(key, "job %s: stage %q is none of the stages %s", job.Name, job.Stage, strings.Join(config.Stages, ", "))
		}
		config.Jobs = append(config.Jobs, job)
	}
	for _, job := range config.Jobs {
		if e := job.Environment; e != nil && e.OnStop != "" && !config.has(e.OnStop) {
			p.errs = append(p.errs, fmt.Errorf("%s:%d: job %s: on_stop names %s, which there isn't", p.file, job.line, job.Name, e.OnStop))
		}
	}
	if len(config.Jobs) == 0 && len(p.errs) == 0 {
		p.errs = append(p.errs, fmt.Errorf("%s: has no job", p.file))
	}
}

func (c *Config) has(job string) bool {
	return slices.ContainsFunc(c.Jobs, func(j Job) bool { return j.Name == job })
}

// extended is a job's mapping laid over those it extends.
func (p *parser) extended(jobs, key, body *yaml.Node, seen []string) *yaml.Node {
	if body.Kind != yaml.MappingNode {
		p.errorf(key, "%s: found %s, expected a job with its keywords", key.Value, kind(body))
		return nil
	}
	if slices.Contains(seen, key.Value) {
		p.errorf(key, "%s extends itself", key.Value)
		return nil
	}
	seen = append(seen, key.Value)
	result := &yaml.Node{Kind: yaml.MappingNode, Line: body.Line}
	if _, extends := find(body, "extends"); extends != nil {
		for _, name := range p.strings(extends) {
			parentKey, parent := find(jobs, name)
			if parent == nil {
				p.errorf(extends, "%s extends %s, which there isn't", key.Value, name)
				return nil
			}
			if parent = p.extended(jobs, parentKey, parent, seen); parent == nil {
				return nil
			}
			result = merge(result, parent)
		}
	}
	result = merge(result, body)
	drop(result, "extends")
	return result
}
