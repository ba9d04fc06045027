package docs

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"podlane/internal/stagelog"
)

// stageFields are the names in a stage's line.
func stageFields() map[string]bool {
	fields := map[string]bool{"app": true}
	line := reflect.TypeFor[stagelog.Line]()
	for i := range line.NumField() {
		name, _, _ := strings.Cut(line.Field(i).Tag.Get("json"), ",")
		fields[name] = true
	}
	return fields
}

// The page names each field of a stage's line.
func TestObservabilityNamesTheFields(t *testing.T) {
	page := read(t, filepath.Join(root, "docs", "observability.md"))
	for field := range stageFields() {
		if field != "app" && !strings.Contains(page, "`"+field+"`") {
			t.Errorf("docs/observability.md does not name %s", field)
		}
	}
}

// The dashboard asks for fields that there are.
func TestDashboardAsksForFieldsThatAreThere(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, filepath.Join(root, "deploy", "grafana-dashboard.json"))), &dashboard); err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile(`(?:unwrap |by \(|\{\{\.|[{|] )([a-z_]+)(?:[ )}=!]|$)`)
	fields, n := stageFields(), 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			for _, m := range asked.FindAllStringSubmatch(target.Expr, -1) {
				if m[1] == "json" || m[1] == "unwrap" || m[1] == "line_format" {
					continue
				}
				n++
				if !fields[m[1]] {
					t.Errorf("%s: no stage's line has %s: %s", panel.Title, m[1], target.Expr)
				}
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d fields were found: the test proves nothing", n)
	}
}
