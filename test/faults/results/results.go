// Package results keeps what the fault tests have found, in a file and in the
// table of docs/reliability.md.
package results

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// Row is a fault and what became of it.
type Row struct {
	Test  string `json:"test"`
	Fault string `json:"fault"`
	Log   string `json:"log"`
	Class string `json:"class"`
	Left  string `json:"left"`
}

// Table is in the order of the tests' names.
type Table []Row

// varying are parts of a line that differ from run to run.
var varying = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`podlane-p\d+-j\d+-[0-9a-f]{8}`), "<pod>"},
	{regexp.MustCompile(`\b(\d+\.)?\d+(ms|s)\b`), "<time>"},
	{regexp.MustCompile(`\d+m<time>`), "<time>"},
	{regexp.MustCompile(`-[0-9a-f]{12}\b`), "-<id>"},
	{regexp.MustCompile(`\b\d+\.\d+\.\d+\.\d+:\d+`), "<address>"},
	{regexp.MustCompile(`(/\S+)+/response\.json\b`), "<folder>/response.json"},
	{regexp.MustCompile(`(/\S+)+/bin/podlane\b`), "podlane"},
	{regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]"), ""},
	{regexp.MustCompile(`\b\d{5,}(Ki|Mi)?\b`), "<number>"},
}

// Read reads a table; a file that is not there has none.
func Read(file string) (Table, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var t Table
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return t, nil
}

// Record puts a row in the place of the one for the same fault, in a file and on
// a page.
func Record(file, page string, r Row) error {
	old, err := Read(file)
	if err != nil {
		return err
	}
	for _, v := range varying {
		r.Log = v.pattern.ReplaceAllString(r.Log, v.with)
	}
	if i := slices.IndexFunc(old, func(o Row) bool { return o.Fault == r.Fault }); i >= 0 {
		old[i] = r
	} else {
		old = append(old, r)
	}
	slices.SortStableFunc(old, func(a, b Row) int { return strings.Compare(a.Test, b.Test) })
	text, err := json.MarshalIndent(old, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		return err
	}
	was, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	now, err := Insert(string(was), old)
	if err != nil {
		return err
	}
	return os.WriteFile(page, []byte(now), 0o644)
}

const (
	begin = "<!-- results: begin; written by make test-faults -->\n"
	end   = "<!-- results: end -->"
)

// Insert puts a table between the marks on a page.
func Insert(page string, t Table) (string, error) {
	head, rest, ok := strings.Cut(page, begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", errors.New("the page has no place for the results")
	}
	return head + begin + t.Markdown() + end + tail, nil
}

// Markdown is the table for a page.
func (t Table) Markdown() string {
	var b strings.Builder
	b.WriteString("| fault | what the job log says | the job ends as | left behind |\n| --- | --- | --- | --- |\n")
	for _, r := range t {
		log := r.Log
		if strings.Contains(log, ":") {
			log = "`" + strings.ReplaceAll(log, "`", "'") + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.Fault, strings.ReplaceAll(log, "|", `\|`), r.Class, r.Left)
	}
	return b.String()
}
