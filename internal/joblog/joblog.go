// Package joblog writes the lines that job authors read: one line an event,
// lower case, no timestamps (the runner adds its own), no decoration.
package joblog

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// Log writes lines to the job log. It is safe for concurrent use. A nil *Log
// writes nothing.
type Log struct {
	mu sync.Mutex
	w  io.Writer
}

// New returns a log on w.
func New(w io.Writer) *Log { return &Log{w: w} }

// Linef writes one line. Line breaks and control characters inside it, which
// may come from a cluster's messages or a job's names, become spaces: they
// would let a message pass for something else.
func (l *Log) Linef(format string, args ...any) {
	if l == nil {
		return
	}
	line := OneLine(fmt.Sprintf(format, args...))
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintln(l.w, line)
}

// Warnf writes a line that starts with "warning: ".
func (l *Log) Warnf(format string, args ...any) { l.Linef("warning: "+format, args...) }

// OneLine returns s with every run of line breaks and control characters
// replaced by a space.
func OneLine(s string) string {
	var b strings.Builder
	space := false
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' {
			space = b.Len() > 0
			continue
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	return b.String()
}
