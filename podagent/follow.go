package podagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// follow copies a stage's output from offset to w as it grows. It returns the
// exit record once all output that belongs to the stage has been written, or
// an error, a *StageError if the stage itself failed. An idle stage costs
// nothing.
func follow(ctx context.Context, dir stageDir, offset int64, w io.Writer) (*ExitRecord, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := watch(ctx, dir)
	over := supervisorGone(dir)
	log, err := openAt(dir.log(), offset)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	for {
		// The order matters: what is in the log once there is a record is all
		// there is, and a supervisor leaves a record before it goes.
		gone := isClosed(over)
		record, failed := outcome(dir)
		limit := int64(1 << 62)
		if record != nil {
			limit = record.OutputBytes
		}
		n, err := io.Copy(w, io.LimitReader(log, limit-offset))
		offset += n
		switch {
		case err != nil:
			return nil, fmt.Errorf("pass on the stage's output: %w", err)
		case record != nil || failed != nil:
			return record, failed
		case gone:
			return nil, &StageError{Code: CodeLost, Reason: "the process that watched over the script was killed: out of memory, perhaps"}
		}
		select {
		case <-changed:
		case <-over:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// openAt opens a stage's output for reading from offset, up to which a client
// says it has got it.
func openAt(path string, offset int64) (*os.File, error) {
	log, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the stage's output: %w", err)
	}
	size, err := log.Seek(0, io.SeekEnd)
	if err == nil && offset > size {
		err = &StageError{Code: CodeProtocol, Reason: fmt.Sprintf("asked for the output from byte %d on: there are %d", offset, size)}
	}
	if err == nil {
		_, err = log.Seek(offset, io.SeekStart)
	}
	if err != nil {
		log.Close()
		return nil, err
	}
	return log, nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// outcome reads what a supervisor has left behind: a record, or a failure in
// its place, or nothing yet.
func outcome(dir stageDir) (*ExitRecord, error) {
	record, err := readRecord(dir)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return record, err
	}
	data, err := os.ReadFile(dir.failed())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read how the stage failed: %w", err)
	}
	f := failure{Code: CodeInternal, Reason: "the stage failed"}
	_ = json.Unmarshal(data, &f)
	return nil, &StageError{Code: f.Code, Reason: f.Reason}
}
