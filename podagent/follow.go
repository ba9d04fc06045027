package podagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// follow copies a stage's output from offset to w as it grows. It returns the
// exit record once all output that belongs to the stage has been written, or
// the failure that took its place. It waits by inotify: an idle stage costs
// nothing.
func follow(ctx context.Context, dir stageDir, offset int64, w io.Writer) (*ExitRecord, *failure, error) {
	changes, err := watchDir(string(dir))
	if err != nil {
		return nil, nil, err
	}
	defer changes.Close()
	defer context.AfterFunc(ctx, func() { _ = changes.SetReadDeadline(time.Unix(1, 0)) })()
	log, err := os.Open(dir.log())
	if err != nil {
		return nil, nil, fmt.Errorf("open the stage's output: %w", err)
	}
	defer log.Close()
	if _, err := log.Seek(offset, io.SeekStart); err != nil {
		return nil, nil, fmt.Errorf("find the place to go on from: %w", err)
	}

	buf := make([]byte, 4096)
	for {
		// The record is looked for before the output is copied: what is in
		// the log then is all there is.
		record, failed, err := outcome(dir)
		if err != nil {
			return nil, nil, err
		}
		limit := int64(1 << 62)
		if record != nil {
			limit = record.OutputBytes
		}
		n, err := io.Copy(w, io.LimitReader(log, limit-offset))
		offset += n
		if err != nil {
			return nil, nil, fmt.Errorf("pass on the stage's output: %w", err)
		}
		if record != nil || failed != nil {
			return record, failed, nil
		}
		if _, err := changes.Read(buf); err != nil {
			return nil, nil, ctx.Err()
		}
	}
}

// watchDir watches a folder for files that grow, appear or are closed. The
// last of these also tells that the supervisor has been killed.
func watchDir(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch the stage's folder: %w", err)
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_MOVED_TO|unix.IN_CLOSE_WRITE); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch the stage's folder: %w", err)
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

// outcome tells how a stage has ended; three times nothing if it hasn't.
func outcome(dir stageDir) (*ExitRecord, *failure, error) {
	alive, err := supervisorAlive(dir)
	if err != nil {
		return nil, nil, err
	}
	record, err := readRecord(dir)
	if err == nil {
		return record, nil, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	if data, err := os.ReadFile(dir.failed()); err == nil {
		f := failure{Code: CodeInternal, Reason: "the stage failed"}
		_ = json.Unmarshal(data, &f)
		return nil, &f, nil
	}
	if !alive {
		return nil, &failure{Code: CodeLost, Reason: "the process that watched over the script was killed: out of memory, perhaps"}, nil
	}
	return nil, nil, nil
}

// supervisorAlive tries the lock that the supervisor has for as long as it
// lives.
func supervisorAlive(dir stageDir) (bool, error) {
	f, dead, err := lock(dir.supervised(), false)
	if dead {
		f.Close()
	}
	return !dead, err
}
