package runnersim

import (
	"fmt"
	"io"
	"time"

	"podlane/test/runnersim/trace"
)

// Colours and control sequences of the runner's lines (gitlab-runner
// helpers/ansi_colors.go).
const (
	ansiBoldRed   = "\033[31;1m"
	ansiBoldGreen = "\033[32;1m"
	ansiBoldCyan  = "\033[36;1m"
	ansiYellow    = "\033[0;33m"
	ansiReset     = "\033[0;m"
	ansiClear     = "\033[0K"
)

// jobLog writes the runner's own lines and a driver's output into a job's
// trace, masked (gitlab-runner common/buildlogger).
type jobLog struct {
	out      io.Writer
	phrases  []string
	prefixes []string
	sections bool
}

// stream is for one call's stdout or stderr: each is masked for itself.
func (l *jobLog) stream() io.WriteCloser { return trace.Mask(l.out, l.phrases, l.prefixes) }

// raw writes text masked. Nobody could act on an error: the trace is the place
// to report one.
func (l *jobLog) raw(text string) {
	w := l.stream()
	_, _ = io.WriteString(w, text)
	_ = w.Close()
}

func (l *jobLog) line(prefix string, args []any) {
	text := fmt.Sprintln(args...)
	l.raw(prefix + text[:len(text)-1] + ansiReset + "\n")
}

func (l *jobLog) println(args ...any) { l.line(ansiClear, args) }
func (l *jobLog) info(args ...any)    { l.line(ansiBoldGreen, args) }
func (l *jobLog) warning(args ...any) { l.line(ansiYellow+"WARNING: ", args) }
func (l *jobLog) error(args ...any)   { l.line(ansiBoldRed+"ERROR: ", args) }

// section runs f between the markers that GitLab folds a log by, if this GitLab
// wants them (gitlab-runner helpers/build_section.go).
func (l *jobLog) section(name string, f func() error) error {
	if l.sections {
		l.mark("section_start", name)
		defer l.mark("section_end", name)
	}
	return f()
}

func (l *jobLog) mark(kind, name string) {
	l.raw(fmt.Sprintf("%s:%d:%s\r%s", kind, time.Now().Unix(), name, ansiClear))
}
