package podagent

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// sharedFlags open a file in the shared volume, where the job may have put a
// link, which is not followed, or a pipe, which does not block.
const sharedFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK

// touch gives a file the present time. It writes to it: setting times would
// need to own it, and the containers may have different users. A failure is
// nobody's: the pod then ends early, and says why.
func touch(path string) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC|sharedFlags, 0)
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|sharedFlags, 0o666) //nolint:gosec // both containers write to it
		if err == nil {
			_ = f.Chmod(0o666)
		}
	}
	if err != nil {
		return
	}
	_, _ = f.WriteString(".")
	f.Close()
}
