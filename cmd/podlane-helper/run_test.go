package main

import (
	"bytes"
	"strings"
	"testing"
)

// call runs the program in this process.
func call(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(append([]string{"podlane-helper"}, args...), nil, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestEveryCommandExplainsItself(t *testing.T) {
	for _, c := range commands() {
		code, stdout, stderr := call(c.name, "--help")
		if code != 0 || stderr != "" {
			t.Errorf("%s --help: exit code %d, %s", c.name, code, stderr)
		}
		for _, want := range []string{"podlane-helper " + c.name, "Writes  ", "Exits   "} {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s --help has no %q", c.name, want)
			}
		}
		if _, overview, _ := call("--help"); !strings.Contains(overview, c.short) {
			t.Errorf("the overview lacks %s: %s", c.name, overview)
		}
		for line := range strings.Lines(stdout) {
			if len(line) > 81 {
				t.Errorf("%s --help has a line of %d characters", c.name, len(line)-1)
			}
		}
	}
}

func TestWrongCommandLines(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{nil, "podlane-helper works inside"},
		{[]string{"walk"}, `no command "walk"`},
		{[]string{"run", "more"}, "got 1 arguments, expected 0"},
		{[]string{"install"}, "got 0 arguments, expected 1"},
		{[]string{"init", "--role", "both"}, "expected build or helper"},
		{[]string{"init", "--idle", "soon"}, "idle"},
		{[]string{"ready", "--service", "db"}, "expected NAME=PORT"},
		{[]string{"ready", "--service", "db=99999"}, "is not a port"},
		{[]string{"supervise"}, "expected 1"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			code, stdout, stderr := call(tt.args...)
			if code != exitUsage || stdout != "" || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit code %d, stdout %q, stderr %s", code, stdout, stderr)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	if code, stdout, _ := call("version"); code != 0 || strings.Count(stdout, "\n") != 1 {
		t.Errorf("exit code %d, %q", code, stdout)
	}
}
