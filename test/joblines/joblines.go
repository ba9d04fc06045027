// Package joblines compares what a script has printed with the job log, in which
// podlane may say something at any time: the cluster warns when it likes.
package joblines

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var own = regexp.MustCompile(`^(warning: |warning from the cluster: |the pod is being ended: )`)

// Own tells podlane's own lines that may come while a script runs from a script's.
func Own(line string) bool { return own.MatchString(line) }

// Same says where a part of a log departs from what a script has printed.
// Podlane's own lines are left out. Where one comes in the middle of a line of
// the script, podlane has ended that line before.
func Same(log, want string, own func(line string) bool) error {
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
		if own(line) {
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

// Without returns a log of whole lines without podlane's own.
func Without(log string) string {
	return strings.Join(slices.DeleteFunc(strings.SplitAfter(log, "\n"), Own), "")
}
