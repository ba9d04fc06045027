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

// lock opens a file and locks it, waiting if wait is set. ok is false if
// somebody else has it. Closing the file unlocks it; so does the death of every
// process that has it open.
func lock(path string, wait bool) (f *os.File, ok bool, err error) {
	f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, false, nil
	}
	if err != nil {
		f.Close()
		return nil, false, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, true, nil
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
