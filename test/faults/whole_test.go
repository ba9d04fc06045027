package faults

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
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
	if err := printed(body[:end], want); err != nil {
		t.Errorf("the log is not what the script has printed: %v", err)
	}
}

// printed says where a log departs from the numbers that a script has printed.
// Lines that are no numbers are podlane's own. Where one comes in the middle of
// a number, podlane ends that number's line before.
func printed(log, want string) error {
	at := map[int]bool{0: true} // where in want the log may be
	pass := func(text string, cut bool) error {
		next := map[int]bool{}
		for i := range at {
			if strings.HasPrefix(want[i:], text) {
				next[i+len(text)] = true
			}
			if unbroken := strings.TrimSuffix(text, "\n"); cut && strings.HasPrefix(want[i:], unbroken) {
				next[i+len(unbroken)] = true
			}
		}
		if len(next) == 0 {
			return departure(text, want, at)
		}
		at = next
		return nil
	}
	begin, offset := 0, 0
	for line := range strings.Lines(log) {
		if strings.Trim(line, "0123456789\n") != "" {
			if err := pass(log[begin:offset], true); err != nil {
				return err
			}
			begin = offset + len(line)
		}
		offset += len(line)
	}
	if err := pass(log[begin:], false); err != nil {
		return err
	}
	if !at[len(want)] {
		return fmt.Errorf("it ends after one of %v of %d bytes", at, len(want))
	}
	return nil
}

func departure(text, want string, at map[int]bool) error {
	var found []string
	for i := range at {
		same := 0
		for same < len(text) && i+same < len(want) && text[same] == want[i+same] {
			same++
		}
		found = append(found, fmt.Sprintf("after %d of %d bytes there is %q, want %q",
			i+same, len(want), text[max(same-40, 0):min(same+40, len(text))], want[max(i+same-40, 0):min(i+same+40, len(want))]))
	}
	return fmt.Errorf("%s", strings.Join(found, "; or "))
}

func TestPrinted(t *testing.T) {
	const want = "1\n2\n3\n10\n11\n"
	for log, ok := range map[string]bool{
		want:                                     true,
		"1\n2\nwarning: x\n3\n10\n11\n":          true,
		"1\n2\n3\n1\nwarning: x\n0\n11\n":        true,
		"1\n2\n3\n10\nwarning: x\n\n11\n":        true,
		"warning: x\n1\n2\n3\n10\n11\nwarning\n": true,
		"1\n2\n3\n1\n0\n11\n":                    false,
		"1\n2\n3\n10\n":                          false,
		"1\n2\n3\n10\n11\n11\n":                  false,
		"1\n2\nwarning: x\n2\n3\n10\n11\n":       false,
		"1\n3\n2\n10\n11\n":                      false,
		"":                                       false,
	} {
		if err := printed(log, want); (err == nil) != ok {
			t.Errorf("%q: %v", log, err)
		}
	}
}
