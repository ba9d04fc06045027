package main

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"sync"
)

// printer prints lines of several jobs, each with its job's name before it.
type printer struct {
	mu    sync.Mutex
	out   io.Writer
	width int
	// only picks lines; nil means all.
	only func(text string) bool
}

func (p *printer) line(job, text string) {
	if p.only != nil && !p.only(text) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "%-*s | %s\n", p.width, job, text)
}

// jobWriter cuts one job's log into lines and prints them for a terminal:
// GitLab's section marks become a blank line before the section's heading, and
// colours go.
type jobWriter struct {
	printer *printer
	job     string
	rest    []byte
}

var (
	sectionStart = regexp.MustCompile(`section_start:\d+:[^\r]*\r`)
	control      = regexp.MustCompile(`section_end:\d+:[^\r]*\r|\x1b\[[0-9;]*[A-Za-z]|\r`)
)

// Write implements io.Writer.
func (w *jobWriter) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		w.print(line)
		w.rest = rest
	}
}

func (w *jobWriter) flush() {
	if len(w.rest) > 0 {
		w.print(w.rest)
	}
	w.rest = nil
}

func (w *jobWriter) print(line []byte) {
	heading := sectionStart.Match(line)
	text := string(control.ReplaceAll(sectionStart.ReplaceAll(line, nil), nil))
	switch {
	case heading:
		w.printer.line(w.job, "== "+text)
	case text != "":
		w.printer.line(w.job, text)
	}
}
