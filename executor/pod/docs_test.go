package pod

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The page shows the table as it stands in the code.
func TestFailuresPageShowsTheTable(t *testing.T) {
	const page = "../../docs/failures.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	want.WriteString("| reason | fault | meaning |\n| --- | --- | --- |\n")
	for _, r := range Reasons {
		fmt.Fprintf(&want, "| %s | %s | %s |\n", r.Name, r.Fault, r.Means)
	}
	if *update {
		head, _, _ := strings.Cut(string(text), "| reason |")
		if err := os.WriteFile(page, []byte(head+want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !strings.HasSuffix(string(text), want.String()) {
		t.Errorf("%s does not end with this table:\n%s", page, want.String())
	}
}
