package docs

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// answers are what the parity page may say about a name, each with what its row
// must then name.
var answers = map[string]*regexp.Regexp{
	"setting":    setting,
	"variable":   regexp.MustCompile("`overwrites\\."),
	"template":   regexp.MustCompile("`spec"),
	"not needed": regexp.MustCompile(`\w+ \w+`),
}

var setting = regexp.MustCompile("`((?:kubernetes|job|pod|resources|overwrites|images|security|vault)\\.[a-z_.]+)`")

// parityRow is a row of the parity page.
type parityRow struct{ name, answer, how string }

func parityRows(t *testing.T) []parityRow {
	t.Helper()
	var rows []parityRow
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([a-z ]+) \\| (.+) \\|$").FindAllStringSubmatch(read(t, filepath.Join(root, "docs/kubernetes-executor-parity.md")), -1) {
		rows = append(rows, parityRow{m[1], m[2], m[3]})
	}
	return rows
}

// Every name of GitLab's executor has exactly one row, and no other has one.
func TestParityPageAnswersForEveryName(t *testing.T) {
	missing := map[string]bool{}
	for line := range strings.Lines(read(t, "testdata/kubernetes-executor-names.txt")) {
		if name := strings.TrimSpace(line); name != "" && !strings.HasPrefix(name, "#") {
			missing[name] = true
		}
	}
	for _, row := range parityRows(t) {
		if !missing[row.name] {
			t.Errorf("%s has a second row, or is no name of GitLab's executor", row.name)
		}
		delete(missing, row.name)
		switch what, known := answers[row.answer]; {
		case !known:
			t.Errorf("%s: the answer %q is none", row.name, row.answer)
		case !what.MatchString(row.how):
			t.Errorf("%s: the answer %q does not say how: %s", row.name, row.answer, row.how)
		}
	}
	for name := range missing {
		t.Errorf("%s has no row", name)
	}
}

// What the page names is in the example, in its table.
func TestParityPageNamesSettingsThatExist(t *testing.T) {
	tables := strings.Split("\n"+read(t, filepath.Join(root, "podlane.example.toml")), "\n[")
	for _, row := range parityRows(t) {
		for _, m := range setting.FindAllStringSubmatch(row.how, -1) {
			dot := strings.LastIndex(m[1], ".")
			table, key := m[1][:dot], m[1][dot+1:]
			found := false
			for _, text := range tables {
				found = found || strings.HasPrefix(text, table+"]\n") && strings.Contains(text, "\n"+key+" = ") || strings.HasPrefix(text, m[1]+"]\n")
			}
			if !found {
				t.Errorf("%s: there is no setting %s", row.name, m[1])
			}
		}
	}
}
