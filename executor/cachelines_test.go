package executor

import (
	"testing"
	"time"

	"podlane/podagent"
)

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 9_949: "9.9 kB", 9_950: "10 kB", 999_400: "999 kB", 999_600: "1.0 MB",
		88_123_456: "88 MB", 593_000_000: "593 MB", 1_500_000_000: "1.5 GB", 2_000_000_000_000_000: "2000 TB",
	} {
		if got := sizeOf(n); got != want {
			t.Errorf("%d bytes are %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int]string{0: "0 files", 1: "1 file", 999: "999 files", 1000: "1,000 files", 1_234_567: "1,234,567 files"} {
		if got := files(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestShownKeys(t *testing.T) {
	for k, want := range map[string]string{
		"node-" + digestA:                     "node-aaaaaaaa…",
		"x-" + digestA + "-" + digestB + "-2": "x-aaaaaaaa…-bbbbbbbb…-2",
		"plain":                               "plain",
	} {
		if got := shown(k); got != want {
			t.Errorf("%s is shown as %s, want %s", k, got, want)
		}
	}
}

func TestAgo(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		-time.Hour: "just now", time.Second: "just now", 5 * time.Minute: "5 minutes ago", 3 * time.Hour: "3 hours ago", 80 * time.Hour: "3 days ago",
	} {
		if got := ago(now.Add(-d), now); got != want {
			t.Errorf("%s is %s, want %s", d, got, want)
		}
	}
	if got := ago(time.Time{}, now); got != "some time ago" {
		t.Errorf("no time is %s", got)
	}
}

func TestNotes(t *testing.T) {
	got := notesOf(&podagent.SaveResult{Notes: []string{"a", "b", "c", "d", "e"}, CacheTree: podagent.CacheTree{Skipped: []string{"s"}}})
	if want := "; a, b, c and 2 more; without s: sockets, pipes and devices can't be saved"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
