package faults

import (
	"strconv"
	"strings"
	"testing"

	"podlane/test/joblines"
)

// numbers is what seq prints.
func numbers(n int) string {
	b := make([]byte, 0, 9*n)
	for i := 1; i <= n; i++ {
		b = append(strconv.AppendInt(b, int64(i), 10), '\n')
	}
	return string(b)
}

// whole checks that a log has exactly what the script has printed between <<<
// and >>>, which is numbers and nothing else.
func (o outcome) whole(t *testing.T, want string) {
	t.Helper()
	_, body, ok := strings.Cut(o.trace, "\n<<<\n")
	end := strings.LastIndex(body, ">>>\n")
	if !ok || end < 0 {
		t.Fatal("the log lacks the output")
	}
	if err := joblines.Same(body[:end], want, noNumber); err != nil {
		t.Errorf("the log is not what the script has printed: %v", err)
	}
}

// noNumber tells podlane's own lines from the script's.
func noNumber(line string) bool { return strings.Trim(line, "0123456789\n") != "" }
