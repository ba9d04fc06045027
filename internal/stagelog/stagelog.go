// Package stagelog writes a JSON line at the end of each stage, for the people
// who run the runner: what ran, for whom, how long, and how it ended.
package stagelog

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sirupsen/logrus"
)

// Class says how a stage ended, in the words of docs/failures.md.
type Class string

// The classes of an end.
const (
	Success       Class = "success"
	BuildFailure  Class = "build_failure"
	SystemFailure Class = "system_failure"
	Cancelled     Class = "cancelled"
)

// Line is what there is to say about one stage. Its JSON names are an
// interface: dashboards use them.
type Line struct {
	Time        time.Time `json:"time"`
	Stage       string    `json:"stage"`
	Began       time.Time `json:"began"`
	Seconds     float64   `json:"seconds"`
	Class       Class     `json:"class"`
	ExitCode    int       `json:"exit_code"`
	Error       string    `json:"error,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	Job         int64     `json:"job"`
	JobName     string    `json:"job_name,omitempty"`
	Project     string    `json:"project,omitempty"`
	ProjectID   int64     `json:"project_id"`
	Pipeline    int64     `json:"pipeline,omitempty"`
	Attempt     string    `json:"attempt,omitempty"`
	Pod         string    `json:"pod,omitempty"`
	Namespace   string    `json:"namespace,omitempty"`
	Node        string    `json:"node,omitempty"`
	OutputBytes int64     `json:"output_bytes"`
	// Cache is hit, fallback, miss, error, saved, unchanged or off: the worst of
	// the stage's caches, if it has any.
	Cache      string `json:"cache,omitempty"`
	CacheBytes int64  `json:"cache_bytes,omitempty"`
	TraceID    string `json:"trace_id,omitempty"`
	TraceError string `json:"trace_error,omitempty"`
	// Phases are parts of the stage, in order of their end.
	Phases []Phase `json:"phases,omitempty"`
}

// Phase is a part of a stage.
type Phase struct {
	Name    string    `json:"name"`
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`
}

// Write writes a line to w in a single call, so that the lines of several
// processes do not mix in one file.
func Write(w io.Writer, line Line) error {
	raw, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("encode a stage's line: %w", err)
	}
	fields := logrus.Fields{}
	if err := json.Unmarshal(raw, &fields); err != nil {
		return fmt.Errorf("encode a stage's line: %w", err)
	}
	delete(fields, "time") // logrus's own
	logger := &logrus.Logger{Out: w, Formatter: &logrus.JSONFormatter{TimestampFormat: time.RFC3339Nano}, Level: logrus.InfoLevel, Hooks: logrus.LevelHooks{}}
	entry := logger.WithFields(fields).WithTime(line.Time)
	if line.Class == SystemFailure {
		entry.Warn("stage ended")
		return nil
	}
	entry.Info("stage ended")
	return nil
}

// Append writes a line to the end of a file, which is made if it is not there.
func Append(path string, mode os.FileMode, line Line) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, mode)
	if err != nil {
		return err
	}
	return errors.Join(Write(f, line), f.Close())
}

// Read reads the lines of a file. A file that is not there has none, and a line
// that is none, because its writer was killed, is left out.
func Read(path string) ([]Line, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []Line
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var line Line
		if json.Unmarshal(scanner.Bytes(), &line) == nil && line.Stage != "" {
			lines = append(lines, line)
		}
	}
	return lines, scanner.Err()
}
