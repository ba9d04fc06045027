package docs

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each script's page has a row for every option of its --help, and no other.
func TestScriptsOptions(t *testing.T) {
	inHelp := regexp.MustCompile(`(?m)^  (--[a-z-]+)`)
	inPage := regexp.MustCompile("(?m)^\\| `(--[a-z-]+)` \\|")
	for script, page := range map[string]string{"vault-bootstrap": "vault-setup.md", "bucket-bootstrap": "bucket-setup.md"} {
		help, err := exec.Command("sh", filepath.Join(root, "scripts", script), "--help").Output()
		if err != nil {
			t.Fatalf("%s --help: %v", script, err)
		}
		want, got := options(inHelp, string(help)), options(inPage, read(t, filepath.Join(root, "docs", page)))
		if len(want) < 5 || !slices.Equal(got, want) {
			t.Errorf("%s has %v, %s --help has %v", page, got, script, want)
		}
		for _, line := range strings.Split(string(help), "\n") {
			if len(line) > 90 {
				t.Errorf("%s --help: too long: %s", script, line)
			}
		}
		code := read(t, filepath.Join(root, "scripts", script))
		for _, option := range want {
			if !strings.Contains(code, "\n\t"+option+") ") && !strings.Contains(code, "\n\t"+option+" |") {
				t.Errorf("%s knows no option %s", script, option)
			}
		}
	}
}

func options(pattern *regexp.Regexp, text string) []string {
	var list []string
	for _, m := range pattern.FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	slices.Sort(list)
	return list
}
