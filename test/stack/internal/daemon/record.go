package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// record is what a pid file holds: which process it is, and a fingerprint of
// how it was started.
type record struct {
	id          identity
	fingerprint string
}

func (r record) write(path string) error {
	text := fmt.Sprintf("%d %d %s %s\n", r.id.pid, r.id.start, r.id.boot, r.fingerprint)
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// readRecord returns ok false where there is no record, or none that makes
// sense: both mean that nothing of ours is known to run.
func readRecord(path string) (r record, ok bool, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, false, nil
	}
	if err != nil {
		return record{}, false, err
	}
	n, err := fmt.Sscanf(string(text), "%d %d %s %s\n", &r.id.pid, &r.id.start, &r.id.boot, &r.fingerprint)
	if err != nil || n != 4 || r.id.pid <= 1 {
		return record{}, false, nil //nolint:nilerr // a record that can't be read is as good as none
	}
	return r, true, nil
}
