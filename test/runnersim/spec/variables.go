package spec

import (
	"os"
	"path"
	"strconv"
	"strings"
)

// Variable is a CI/CD variable.
type Variable struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Public bool   `json:"public"`
	File   bool   `json:"file"`
	Masked bool   `json:"masked"`
	Raw    bool   `json:"raw"`
}

// TempDirKey names the variable with the folder that file variables are
// written to.
const TempDirKey = "RUNNER_TEMP_PROJECT_DIR"

// Variables are in order of precedence: the last of a name counts.
type Variables []Variable

// Get returns a variable's value; of a file variable, its file's path.
func (v Variables) Get(key string) string { return v.get(key, true) }

// Value returns a variable's value; of a file variable, the file's content.
func (v Variables) Value(key string) string { return v.get(key, false) }

func (v Variables) get(key string, paths bool) string {
	switch key {
	case "$":
		return key
	case "*", "#", "@", "!", "?", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9":
		return ""
	}
	for i := len(v) - 1; i >= 0; i-- {
		if v[i].Key != key {
			continue
		}
		if v[i].File && paths {
			return path.Join(v.Value(TempDirKey), key)
		}
		return v[i].Value
	}
	return ""
}

// Bool reads a variable the way the runner does: "true", "1" and the like.
func (v Variables) Bool(key string) bool {
	value := v.Get(key)
	if b, err := strconv.ParseBool(strings.ToLower(value)); err == nil {
		return b
	}
	n, err := strconv.ParseInt(value, 10, 32)
	return err == nil && n == 1
}

// ExpandValue replaces $NAME and ${NAME} once, without expanding what came in.
func (v Variables) ExpandValue(s string) string { return os.Expand(s, v.Get) }

// Expand expands every variable that isn't raw against all of them
// (gitlab-runner common/spec/variables.go, Expand).
func (v Variables) Expand() Variables {
	out := make(Variables, len(v))
	for i, x := range v {
		if !x.Raw {
			x.Value = v.ExpandValue(x.Value)
		}
		out[i] = x
	}
	return out
}

// Masked lists the values that must not show in the job log.
func (v Variables) Masked() []string {
	var out []string
	for _, x := range v {
		if x.Masked {
			out = append(out, x.Value)
		}
	}
	return out
}

// Overwrite replaces the first variable with x's key, if there is one.
func (v Variables) Overwrite(x Variable) {
	for i := range v {
		if v[i].Key == x.Key {
			v[i] = x
			return
		}
	}
}
