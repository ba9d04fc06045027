package executor

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"podlane/cacheclient/key"
	"podlane/internal/joblog"
	"podlane/podagent"
)

// What the job log says about caches: one line for each.

var longDigest = regexp.MustCompile(`\b[0-9a-f]{40}\b`)

// shown is a key for the job log: digests are cut to what tells them apart.
func shown(k string) string {
	return longDigest.ReplaceAllStringFunc(k, func(digest string) string { return digest[:8] + "…" })
}

// sizeOf writes bytes as people do.
func sizeOf(n int64) string { return joblog.Size(n) }

// files writes a number of them, with commas.
func files(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	if n == 1 {
		return digits + " file"
	}
	return digits + " files"
}

// contents is what a tree holds and how long it took. verb stands before the
// archive's size.
func contents(t podagent.CacheTree, verb string, took time.Duration) string {
	return fmt.Sprintf("%s, %s %s %s, in %s", files(t.Files), sizeOf(t.Bytes), verb, sizeOf(t.Size), round(took))
}

// ago is a time as people say it.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "some time ago"
	}
	d := now.Sub(t)
	switch {
	case d < 2*time.Minute:
		return "just now"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
}

// notesOf tells what a saved cache lacks.
func notesOf(r *podagent.SaveResult) string {
	var notes strings.Builder
	if len(r.Notes) > 0 {
		notes.WriteString("; " + joblog.Few(r.Notes))
	}
	if len(r.Skipped) > 0 {
		notes.WriteString("; without " + joblog.Few(r.Skipped) + ": sockets, pipes and devices can't be saved")
	}
	return notes.String()
}

// where names a candidate's scope if it isn't the job's own.
func where(c key.Candidate, own key.Scope) string {
	if c.Scope == own {
		return ""
	}
	return ", from the " + string(c.Scope) + " caches"
}
