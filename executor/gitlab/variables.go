package gitlab

import (
	"os"
	"strings"
)

// Variable is a CI/CD variable as GitLab sends it: unexpanded.
type Variable struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Public bool   `json:"public"`
	File   bool   `json:"file"`
	Masked bool   `json:"masked"`
	Raw    bool   `json:"raw"`
}

// Variables is a list in order of precedence: of two with the same key the
// later one counts.
type Variables []Variable

// Get returns the unexpanded value of a variable, or "".
func (v Variables) Get(key string) string {
	value, _ := v.Lookup(key)
	return value
}

// Lookup returns the unexpanded value of a variable and whether there is one.
func (v Variables) Lookup(key string) (string, bool) {
	for i := len(v) - 1; i >= 0; i-- {
		if v[i].Key == key {
			return v[i].Value, true
		}
	}
	return "", false
}

// First returns the unexpanded value of the first variable with a key. GitLab
// sends what it makes itself, id_tokens among it, before anything that
// whoever writes a job can set (GitLab app/models/ci/build.rb, variables), so a
// variable of the same name in the job or the project comes later: to the
// script it counts, to us it does not.
func (v Variables) First(key string) (string, bool) {
	for _, x := range v {
		if x.Key == key {
			return x.Value, true
		}
	}
	return "", false
}

// Expand replaces $NAME and ${NAME} by the variables' values once, as the
// runner does (gitlab-runner common/variables.go: os.Expand, "$$" stands for a
// dollar sign, a variable that isn't there for nothing). References beyond
// what an environment can hold stand for nothing, too: a value of a megabyte
// that names itself all along would become a terabyte.
func (v Variables) Expand(s string) string { return expand(s, v.Get) }

func expand(s string, get func(key string) string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	room := maxExpanded
	return os.Expand(s, func(key string) string {
		if key == "$" {
			return "$"
		}
		if room <= 0 {
			return ""
		}
		value := get(key)
		room -= len(value)
		return value
	})
}

// maxExpanded bounds an expanded value, since a reference can be shorter than
// what it stands for: 128 KiB is the longest string an environment can hold.
const maxExpanded = 128 << 10

// Resolve returns each key's value once, in order of first appearance, with
// references expanded against all variables unless the variable is raw. A
// value that grows beyond what a process environment can hold is cut.
func (v Variables) Resolve() Variables {
	at := make(map[string]int, len(v))
	var out Variables
	for _, x := range v {
		if i, seen := at[x.Key]; seen {
			out[i] = x
			continue
		}
		at[x.Key] = len(out)
		out = append(out, x)
	}
	get := func(key string) string {
		if i, ok := at[key]; ok {
			return out[i].Value
		}
		return ""
	}
	resolved := make(Variables, len(out))
	for i, x := range out {
		if !x.Raw {
			x.Value = expand(x.Value, get)
		}
		if len(x.Value) > maxExpanded {
			x.Value = x.Value[:maxExpanded]
		}
		resolved[i] = x
	}
	return resolved
}
