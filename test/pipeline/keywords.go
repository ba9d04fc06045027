package pipeline

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"podlane/test/gitlabsim"
)

// job reads a job whose defaults and parents are merged in.
func (p *parser) job(key, body *yaml.Node) Job {
	job := Job{Name: key.Value, Stage: "test", When: "on_success", line: key.Line}
	p.mapping(body, "job "+job.Name, keywords{
		"stage":         func(n *yaml.Node) { job.Stage = p.str(n) },
		"image":         func(n *yaml.Node) { job.Image = p.image(n, "image") },
		"services":      func(n *yaml.Node) { job.Services = p.services(n) },
		"variables":     func(n *yaml.Node) { job.Variables = p.variables(n) },
		"before_script": func(n *yaml.Node) { job.BeforeScript = p.strings(n) },
		"script":        func(n *yaml.Node) { job.Script = p.strings(n) },
		"after_script":  func(n *yaml.Node) { job.AfterScript = p.strings(n) },
		"needs":         func(n *yaml.Node) { job.Needs = p.needs(n) },
		"dependencies":  func(n *yaml.Node) { job.Dependencies = p.strings(n) },
		"rules":         func(n *yaml.Node) { job.Rules = p.rules(n) },
		"when":          func(n *yaml.Node) { job.When = p.when(n) },
		"allow_failure": func(n *yaml.Node) { job.AllowFailure = new(p.boolean(n)) },
		"artifacts":     func(n *yaml.Node) { job.Artifacts = p.artifacts(n) },
		"cache":         func(n *yaml.Node) { job.Cache = p.caches(n) },
		"environment":   func(n *yaml.Node) { job.Environment = p.environment(n) },
		"id_tokens":     func(n *yaml.Node) { job.IDTokens = p.idTokens(n) },
		"timeout":       func(n *yaml.Node) { job.Timeout = p.duration(n) },
		"tags":          func(n *yaml.Node) { job.Tags = p.strings(n) },
		"interruptible": func(n *yaml.Node) { job.Interruptible = p.boolean(n) },
		"retry":         func(n *yaml.Node) { job.Retry = p.retry(n) },
	})
	if len(job.Script) == 0 {
		p.errorf(key, "job %s: script is missing", job.Name)
	}
	return job
}

func (p *parser) when(n *yaml.Node) string {
	return p.oneOf(n, "on_success", "on_failure", "always", "manual", "never")
}

// variables reads names with values, or with a mapping of value, description
// and expand.
func (p *parser) variables(n *yaml.Node) []gitlabsim.Variable {
	if n.Kind != yaml.MappingNode {
		p.errorf(n, "variables: found %s, expected names with values", kind(n))
		return nil
	}
	var list []gitlabsim.Variable
	for key, value := range pairs(n) {
		v := gitlabsim.Variable{Key: key.Value, Public: true}
		if value.Kind == yaml.MappingNode {
			p.mapping(value, "variable "+key.Value, keywords{
				"value":       func(n *yaml.Node) { v.Value = p.str(n) },
				"description": func(*yaml.Node) {},
				"expand":      func(n *yaml.Node) { v.Raw = !p.boolean(n) },
			})
		} else {
			v.Value = p.str(value)
		}
		list = append(list, v)
	}
	return list
}

// image reads an image or a service: a name, or a mapping.
func (p *parser) image(n *yaml.Node, what string) gitlabsim.Image {
	if n.Kind == yaml.ScalarNode {
		return gitlabsim.Image{Name: p.str(n)}
	}
	var image gitlabsim.Image
	known := keywords{
		"name":        func(n *yaml.Node) { image.Name = p.str(n) },
		"entrypoint":  func(n *yaml.Node) { image.Entrypoint = p.strings(n) },
		"pull_policy": func(n *yaml.Node) { image.PullPolicy = p.strings(n) },
	}
	if what == "service" {
		known["alias"] = func(n *yaml.Node) { image.Alias = p.str(n) }
		known["command"] = func(n *yaml.Node) { image.Command = p.strings(n) }
		known["variables"] = func(n *yaml.Node) { image.Variables = p.variables(n) }
	}
	p.mapping(n, what, known)
	if image.Name == "" {
		p.errorf(n, "%s: name is missing", what)
	}
	return image
}

func (p *parser) services(n *yaml.Node) []gitlabsim.Image {
	var list []gitlabsim.Image
	for _, item := range p.items(n, "services") {
		list = append(list, p.image(item, "service"))
	}
	return list
}

// items of a list.
func (p *parser) items(n *yaml.Node, what string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		p.errorf(n, "%s: found %s, expected a list", what, kind(n))
		return nil
	}
	return n.Content
}

func (p *parser) needs(n *yaml.Node) []Need {
	list := []Need{}
	for _, item := range p.items(n, "needs") {
		need := Need{Artifacts: true}
		if item.Kind == yaml.ScalarNode {
			need.Job = p.str(item)
		} else {
			p.mapping(item, "needs", keywords{
				"job":       func(n *yaml.Node) { need.Job = p.str(n) },
				"artifacts": func(n *yaml.Node) { need.Artifacts = p.boolean(n) },
				"optional":  func(n *yaml.Node) { need.Optional = p.boolean(n) },
			})
		}
		list = append(list, need)
	}
	return list
}

func (p *parser) rules(n *yaml.Node) []Rule {
	list := []Rule{}
	for _, item := range p.items(n, "rules") {
		var rule Rule
		p.mapping(item, "rules", keywords{
			"if":            func(n *yaml.Node) { rule.If = p.expression(n) },
			"changes":       func(n *yaml.Node) { rule.Changes = p.changes(n) },
			"when":          func(n *yaml.Node) { rule.When = p.when(n) },
			"allow_failure": func(n *yaml.Node) { rule.AllowFailure = new(p.boolean(n)) },
			"variables":     func(n *yaml.Node) { rule.Variables = p.variables(n) },
		})
		list = append(list, rule)
	}
	return list
}

func (p *parser) expression(n *yaml.Node) *Expression {
	e, err := ParseExpression(p.str(n))
	if err != nil {
		p.errorf(n, "if: %v", err)
	}
	return e
}

func (p *parser) changes(n *yaml.Node) []string {
	if n.Kind != yaml.MappingNode {
		return p.strings(n)
	}
	paths := []string{}
	p.mapping(n, "changes", keywords{"paths": func(n *yaml.Node) { paths = p.strings(n) }})
	return paths
}

func (p *parser) artifacts(n *yaml.Node) *gitlabsim.Artifact {
	var a gitlabsim.Artifact
	p.mapping(n, "artifacts", keywords{
		"name":      func(n *yaml.Node) { a.Name = p.str(n) },
		"paths":     func(n *yaml.Node) { a.Paths = p.strings(n) },
		"exclude":   func(n *yaml.Node) { a.Exclude = p.strings(n) },
		"untracked": func(n *yaml.Node) { a.Untracked = p.boolean(n) },
		"when":      func(n *yaml.Node) { a.When = p.oneOf(n, "on_success", "on_failure", "always") },
		"expire_in": func(n *yaml.Node) { a.ExpireIn = p.str(n) },
	})
	return &a
}

func (p *parser) caches(n *yaml.Node) []Cache {
	if n.Kind == yaml.MappingNode {
		return []Cache{p.cache(n)}
	}
	var list []Cache
	for _, item := range p.items(n, "cache") {
		list = append(list, p.cache(item))
	}
	return list
}

func (p *parser) cache(n *yaml.Node) Cache {
	var c Cache
	p.mapping(n, "cache", keywords{
		"key":           func(n *yaml.Node) { p.cacheKey(n, &c) },
		"paths":         func(n *yaml.Node) { c.Paths = p.strings(n) },
		"policy":        func(n *yaml.Node) { c.Policy = p.str(n) },
		"untracked":     func(n *yaml.Node) { c.Untracked = p.boolean(n) },
		"unprotect":     func(n *yaml.Node) { c.Unprotect = p.boolean(n) },
		"when":          func(n *yaml.Node) { c.When = p.oneOf(n, "on_success", "on_failure", "always") },
		"fallback_keys": func(n *yaml.Node) { c.FallbackKeys = p.strings(n) },
	})
	return c
}

// maxKeyFiles is GitLab's limit on cache:key:files.
const maxKeyFiles = 2

func (p *parser) cacheKey(n *yaml.Node, c *Cache) {
	if n.Kind == yaml.ScalarNode {
		c.Key = p.str(n)
		return
	}
	p.mapping(n, "cache key", keywords{
		"files":  func(n *yaml.Node) { c.Files = p.strings(n) },
		"prefix": func(n *yaml.Node) { c.Prefix = p.str(n) },
	})
	if len(c.Files) == 0 || len(c.Files) > maxKeyFiles {
		p.errorf(n, "cache key: found %d files, expected 1 to %d", len(c.Files), maxKeyFiles)
	}
}

func (p *parser) environment(n *yaml.Node) *Environment {
	if n.Kind == yaml.ScalarNode {
		return &Environment{Name: p.str(n)}
	}
	var e Environment
	p.mapping(n, "environment", keywords{
		"name":            func(n *yaml.Node) { e.Name = p.str(n) },
		"url":             func(n *yaml.Node) { e.URL = p.str(n) },
		"on_stop":         func(n *yaml.Node) { e.OnStop = p.str(n) },
		"auto_stop_in":    func(n *yaml.Node) { e.AutoStopIn = p.str(n) },
		"action":          func(n *yaml.Node) { e.Action = p.oneOf(n, "start", "prepare", "stop", "verify", "access") },
		"deployment_tier": func(n *yaml.Node) { e.Tier = p.str(n) },
	})
	return &e
}

func (p *parser) idTokens(n *yaml.Node) map[string]gitlabsim.IDToken {
	if n.Kind != yaml.MappingNode {
		p.errorf(n, "id_tokens: found %s, expected names of variables", kind(n))
		return nil
	}
	tokens := map[string]gitlabsim.IDToken{}
	for key, value := range pairs(n) {
		var token gitlabsim.IDToken
		p.mapping(value, "id_tokens "+key.Value, keywords{"aud": func(n *yaml.Node) { token.Aud = p.strings(n) }})
		if len(token.Aud) == 0 {
			p.errorf(key, "id_tokens %s: aud is missing", key.Value)
		}
		tokens[key.Value] = token
	}
	return tokens
}

// maxRetries is GitLab's limit on retry.
const maxRetries = 2

func (p *parser) retry(n *yaml.Node) Retry {
	var r Retry
	limit := func(n *yaml.Node) {
		count, err := strconv.Atoi(p.str(n))
		if err != nil || count < 0 || count > maxRetries {
			p.errorf(n, "retry: found %s, expected 0 to %d", kind(n), maxRetries)
		}
		r.Max = count
	}
	if n.Kind == yaml.ScalarNode {
		limit(n)
		return r
	}
	p.mapping(n, "retry", keywords{
		"max":  limit,
		"when": func(n *yaml.Node) { r.When = p.strings(n) },
	})
	return r
}

// units of durations as people write them: 1 hour 30 minutes, 2h, 90s.
var units = map[string]time.Duration{
	"s": time.Second, "sec": time.Second, "second": time.Second, "": time.Second,
	"m": time.Minute, "min": time.Minute, "minute": time.Minute,
	"h": time.Hour, "hr": time.Hour, "hour": time.Hour,
	"d": 24 * time.Hour, "day": 24 * time.Hour, "w": 7 * 24 * time.Hour, "week": 7 * 24 * time.Hour,
}

func (p *parser) duration(n *yaml.Node) time.Duration {
	d, ok := parseDuration(p.str(n))
	if !ok {
		p.errorf(n, "found %s, expected a duration such as 1h 30m", kind(n))
	}
	return d
}

func parseDuration(text string) (time.Duration, bool) {
	isDigit := func(r rune) bool { return r >= '0' && r <= '9' }
	rest := strings.ToLower(strings.TrimSpace(text))
	var total time.Duration
	for rest != "" {
		end := strings.IndexFunc(rest, func(r rune) bool { return !isDigit(r) })
		if end < 0 {
			end = len(rest)
		}
		count, err := strconv.Atoi(rest[:end])
		if err != nil {
			return 0, false
		}
		rest = strings.TrimLeft(rest[end:], " ")
		end = slices.IndexFunc([]rune(rest), isDigit)
		if end < 0 {
			end = len(rest)
		}
		name := strings.TrimSpace(rest[:end])
		unit, ok := units[name]
		if !ok {
			unit, ok = units[strings.TrimSuffix(name, "s")]
		}
		if !ok {
			return 0, false
		}
		total += time.Duration(count) * unit
		rest = rest[end:]
	}
	return total, total > 0
}
