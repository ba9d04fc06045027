package results

import (
	"os"
	"testing"
)

// The page shows what the tests found when they were last recorded.
func TestPageShowsTheResults(t *testing.T) {
	table, err := Read("../results.json")
	if err != nil || len(table) == 0 {
		t.Fatalf("%d results, %v", len(table), err)
	}
	page, err := os.ReadFile("../../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	want, err := Insert(string(page), table)
	if err != nil {
		t.Fatal(err)
	}
	if want != string(page) {
		t.Error("docs/reliability.md does not show test/faults/results.json; hint: make test-faults")
	}
}
