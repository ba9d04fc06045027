package runnersim

import (
	"bufio"
	"context"
	"io"
	"log/slog"
)

// runnerLog is the runner's own log, as opposed to a job's.
type runnerLog struct{ *slog.Logger }

func newRunnerLog(w io.Writer) runnerLog {
	return runnerLog{slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))}
}

// lines logs what is written to it, line by line; std says which of
// cleanup_exec's streams it is. Close waits until all is logged.
func (l runnerLog) lines(ctx context.Context, level slog.Level, std string) io.WriteCloser {
	r, w := io.Pipe()
	lw := &lineWriter{PipeWriter: w, done: make(chan struct{})}
	go func() {
		defer close(lw.done)
		lines := bufio.NewReader(r)
		for {
			line, err := lines.ReadString('\n')
			if line != "" {
				l.Log(ctx, level, trimNewline(line), "cleanup_std", std)
			}
			if err != nil {
				return
			}
		}
	}()
	return lw
}

type lineWriter struct {
	*io.PipeWriter
	done chan struct{}
}

func (w *lineWriter) Close() error {
	err := w.PipeWriter.Close()
	<-w.done
	return err
}

func trimNewline(s string) string {
	if n := len(s); n > 0 && s[n-1] == '\n' {
		return s[:n-1]
	}
	return s
}
