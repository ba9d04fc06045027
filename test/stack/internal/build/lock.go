// Package build makes the programs that a stack runs.
package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Lock takes the lock file at path, which no other process then has until
// unlock is called or this process ends. What, such as "up in /src", is told to
// others who wait meanwhile: waiting is called once, with who has the lock, if
// that isn't us. When ctx ends, so does the wait.
func Lock(ctx context.Context, path, what string, waiting func(holder string)) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			if err := sign(f, what); err != nil {
				f.Close()
				return nil, fmt.Errorf("lock %s: %w", path, err)
			}
			return func() { release(f) }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if waiting != nil {
			waiting(holder(path))
			waiting = nil
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for %s, which has the lock %s: %w", holder(path), path, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// sign writes into a lock file who has it.
func sign(f *os.File, what string) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(fmt.Appendf(nil, "%s (process %d)\n", what, os.Getpid()), 0)
	return err
}

// release takes the name out first: it must not be told for the next holder's.
func release(f *os.File) {
	_ = f.Truncate(0)
	f.Close()
}

// holder reads who has a lock file. It may be taken but not yet signed.
func holder(path string) string {
	text, err := os.ReadFile(path)
	if name := strings.TrimSpace(string(text)); err == nil && name != "" {
		return name
	}
	return "another command"
}
