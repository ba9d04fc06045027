package podagent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// writeWhole writes a file that readers see either whole or not at all.
func writeWhole(path string, content io.Reader, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = io.Copy(tmp, content)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// lock opens a file and locks it, as flock(2) has it in how. Closing the file
// unlocks it; so does the death of every process that has it open. The error
// is unix.EWOULDBLOCK if how says not to wait and somebody else has it.
func lock(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, how); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lockBeforeSeen makes a file that has its content and its lock from the moment
// at which others see it.
func lockBeforeSeen(path, content string) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(content)
	if err = errors.Join(err, flock(f, unix.LOCK_EX|unix.LOCK_NB)); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		f.Close()
		return nil, err
	}
	return f, nil
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("flock", err)
		}
	}
}

// isLocked tells whether somebody has a lock on an existing file that excludes
// how: LOCK_SH asks for an exclusive one, LOCK_EX for any.
func isLocked(path string, how int) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = flock(f, how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// isHeld tells whether another process has a lock as fcntl(2) has it on a file.
func isHeld(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock) == nil && lock.Type != unix.F_UNLCK
}

func readRecord(d stageDir) (*ExitRecord, error) {
	data, err := os.ReadFile(d.exit())
	if err != nil {
		return nil, err
	}
	var record ExitRecord
	if err := json.Unmarshal(data, &record); err != nil {
		return nil, fmt.Errorf("read exit record: %w", err)
	}
	return &record, nil
}

// failure is the content of a stage's failed file.
type failure struct {
	Code   ErrorCode `json:"code"`
	Reason string    `json:"reason"`
}
