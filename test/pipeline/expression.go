package pipeline

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Expression is a condition of rules: variables, strings, null and patterns,
// compared with == != =~ !~ and joined with && and ||
// (https://docs.gitlab.com/ci/jobs/job_rules/#cicd-variable-expressions).
type Expression struct {
	text string
	eval func(lookup) *string
}

// lookup returns a variable's value, or nil if it isn't defined.
type lookup func(name string) *string

// String is the expression as it was written.
func (e *Expression) String() string { return e.text }

// True evaluates the expression.
func (e *Expression) True(variables lookup) bool { return truth(e.eval(variables)) }

// truth: what is defined and not empty. A comparison yields "true" or nil.
func truth(value *string) bool { return value != nil && *value != "" }

func verdict(b bool) *string {
	if b {
		return new("true")
	}
	return nil
}

// token kinds: $name, "string" and 'string', /pattern/flags, null, operators.
var tokenPattern = regexp.MustCompile(
	`^(?:\$(\w+)|\$\{(\w+)\}|"([^"]*)"|'([^']*)'|/((?:\\.|[^/\\])+)/([imsU]*)|(null)\b|(==|!=|=~|!~|&&|\|\||\(|\)))`)

type token struct {
	operator string // or
	value    func(lookup) *string
}

func tokenize(text string) ([]token, error) {
	var tokens []token
	rest := strings.TrimSpace(text)
	for rest != "" {
		m := tokenPattern.FindStringSubmatch(rest)
		if m == nil {
			return nil, fmt.Errorf("%q isn't understood from %q on", text, rest)
		}
		tokens = append(tokens, makeToken(m))
		rest = strings.TrimSpace(rest[len(m[0]):])
	}
	return tokens, nil
}

func makeToken(m []string) token {
	switch {
	case m[8] != "":
		return token{operator: m[8]}
	case m[7] != "":
		return token{value: func(lookup) *string { return nil }}
	case m[1] != "" || m[2] != "":
		name := m[1] + m[2]
		return token{value: func(variables lookup) *string { return variables(name) }}
	case m[5] != "":
		return token{value: func(lookup) *string { return &m[0] }}
	default:
		text := m[3] + m[4]
		return token{value: func(lookup) *string { return &text }}
	}
}

// ParseExpression reads a condition.
func ParseExpression(text string) (*Expression, error) {
	tokens, err := tokenize(text)
	if err != nil {
		return nil, err
	}
	r := &reader{tokens: tokens}
	eval, err := r.either()
	if err == nil && len(r.tokens) > 0 {
		err = errors.New("something follows its end")
	}
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	return &Expression{text: text, eval: eval}, nil
}

// reader takes tokens from the left.
type reader struct{ tokens []token }

func (r *reader) accept(operators ...string) string {
	if len(r.tokens) == 0 || r.tokens[0].operator == "" {
		return ""
	}
	for _, o := range operators {
		if r.tokens[0].operator == o {
			r.tokens = r.tokens[1:]
			return o
		}
	}
	return ""
}

func (r *reader) either() (func(lookup) *string, error) { return r.joined("||", r.both) }

func (r *reader) both() (func(lookup) *string, error) { return r.joined("&&", r.comparison) }

// joined reads parts with one operator between them.
func (r *reader) joined(operator string, part func() (func(lookup) *string, error)) (func(lookup) *string, error) {
	left, err := part()
	for err == nil && r.accept(operator) != "" {
		a := left
		var b func(lookup) *string
		b, err = part()
		left = func(v lookup) *string {
			if truth(a(v)) == (operator == "||") {
				return verdict(operator == "||")
			}
			return verdict(truth(b(v)))
		}
	}
	return left, err
}

func (r *reader) comparison() (func(lookup) *string, error) {
	left, err := r.operand()
	if err != nil {
		return nil, err
	}
	operator := r.accept("==", "!=", "=~", "!~")
	if operator == "" {
		return left, nil
	}
	right, err := r.operand()
	if err != nil {
		return nil, err
	}
	return func(v lookup) *string { return verdict(compare(left(v), operator, right(v))) }, nil
}

func (r *reader) operand() (func(lookup) *string, error) {
	if r.accept("(") != "" {
		inner, err := r.either()
		if err == nil && r.accept(")") == "" {
			err = errors.New("a ) is missing")
		}
		return inner, err
	}
	if len(r.tokens) == 0 || r.tokens[0].operator != "" {
		return nil, errors.New("a variable, string, pattern or null is missing")
	}
	value := r.tokens[0].value
	r.tokens = r.tokens[1:]
	return value, nil
}

func compare(left *string, operator string, right *string) bool {
	switch operator {
	case "==":
		return same(left, right)
	case "!=":
		return !same(left, right)
	case "=~":
		return matches(left, right)
	default:
		return !matches(left, right)
	}
}

func same(a, b *string) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// matches reads the pattern at run time, for it may come from a variable. What
// isn't a pattern matches nothing.
func matches(text, pattern *string) bool {
	if text == nil || pattern == nil {
		return false
	}
	m := tokenPattern.FindStringSubmatch(*pattern)
	if m == nil || m[5] == "" || m[0] != *pattern {
		return false
	}
	source := strings.ReplaceAll(m[5], `\/`, "/")
	if m[6] != "" {
		source = "(?" + m[6] + ")" + source
	}
	re, err := regexp.Compile(source)
	return err == nil && re.MatchString(*text)
}
