// Package timing writes the table at the end of a job that says where its time
// went.
package timing

import (
	"fmt"
	"strings"
	"time"
)

// Span is a stretch of a job's time.
type Span struct {
	// Label is what the job did, "pulled images", say. An empty one counts as
	// the rest.
	Label string
	Began time.Time
	Took  time.Duration
}

// shortest is what a table is worth a line for.
const shortest = 5 * time.Millisecond

// rest is the label of what no other line has.
const rest = "everything else"

// Table is a job's time by label, in order of first appearance, with what is
// left over at the end. It is empty if there is nothing to tell. Spans must not
// overlap.
type Table struct {
	Total time.Duration
	Lines []Line
}

// Line is one of a table's.
type Line struct {
	Label string
	Took  time.Duration
}

// Summarise makes the table of spans up to a time.
func Summarise(spans []Span, until time.Time) Table {
	if len(spans) == 0 {
		return Table{}
	}
	began := spans[0].Began
	at := map[string]int{}
	var t Table
	var told time.Duration
	for _, s := range spans {
		if s.Began.Before(began) {
			began = s.Began
		}
		if s.Label == "" || s.Took < shortest {
			continue
		}
		i, seen := at[s.Label]
		if !seen {
			i = len(t.Lines)
			at[s.Label] = i
			t.Lines = append(t.Lines, Line{Label: s.Label})
		}
		t.Lines[i].Took += s.Took
		told += s.Took
	}
	t.Total = until.Sub(began)
	if left := t.Total - told; left >= shortest {
		t.Lines = append(t.Lines, Line{Label: rest, Took: left})
	}
	return t
}

// sectionName is the section's name in GitLab's job log.
const sectionName = "podlane_times"

// Text is the table for a job log: a collapsed section if GitLab knows those
// (https://docs.gitlab.com/ci/jobs/job_logs/#custom-collapsible-sections). It
// is empty if the table is.
func (t Table) Text(sections bool, now time.Time) string {
	if len(t.Lines) == 0 {
		return ""
	}
	var b strings.Builder
	title := "where the time went: " + seconds(t.Total)
	if sections {
		fmt.Fprintf(&b, "\x1b[0Ksection_start:%d:%s[collapsed=true]\r\x1b[0K", now.Unix(), sectionName)
	}
	b.WriteString(title + "\n")
	width, figures := 0, 0
	for _, l := range t.Lines {
		width, figures = max(width, len(l.Label)), max(figures, len(seconds(l.Took)))
	}
	for _, l := range t.Lines {
		fmt.Fprintf(&b, "  %-*s  %*s\n", width, l.Label, figures, seconds(l.Took))
	}
	if sections {
		fmt.Fprintf(&b, "\x1b[0Ksection_end:%d:%s\r\x1b[0K\n", now.Unix(), sectionName)
	}
	return b.String()
}

// seconds writes a duration so that those of a column can be compared.
func seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.2fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}
