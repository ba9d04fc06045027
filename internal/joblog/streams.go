package joblog

import (
	"io"
	"sync"
)

// Streams are stdout and stderr of one process, which end up in one log: the
// runner copies both into the job log. They keep lines of ours and a script's
// apart. They are safe for concurrent use.
type Streams struct {
	mu      sync.Mutex
	midLine bool
}

// Bytes returns a writer to w of bytes as they come, which a script's output is.
func (s *Streams) Bytes(w io.Writer) io.Writer { return &bytesWriter{s, w} }

// Lines returns a writer to w of whole lines, one or more a Write. In the
// middle of a line of somebody else they begin a line of their own.
func (s *Streams) Lines(w io.Writer) io.Writer { return &linesWriter{s, w} }

type bytesWriter struct {
	streams *Streams
	w       io.Writer
}

func (b *bytesWriter) Write(p []byte) (int, error) {
	b.streams.mu.Lock()
	defer b.streams.mu.Unlock()
	n, err := b.w.Write(p)
	if n > 0 {
		b.streams.midLine = p[n-1] != '\n'
	}
	return n, err
}

type linesWriter struct {
	streams *Streams
	w       io.Writer
}

func (l *linesWriter) Write(p []byte) (int, error) {
	l.streams.mu.Lock()
	defer l.streams.mu.Unlock()
	if l.streams.midLine {
		if _, err := io.WriteString(l.w, "\n"); err != nil {
			return 0, err
		}
		l.streams.midLine = false
	}
	return l.w.Write(p)
}
