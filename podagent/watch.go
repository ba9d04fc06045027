package podagent

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watchPause is how often a log is looked at where inotify is not to be had.
const watchPause = 100 * time.Millisecond

// watch returns a channel that gets a value after something in a stage's
// folder has grown or appeared, until ctx ends.
//
// The kernel gives one user 128 inotify instances by default
// (fs.inotify.max_user_instances), and root in all of a node's pods is one
// user. A session that gets none looks at the clock instead.
func watch(ctx context.Context, dir stageDir) <-chan struct{} {
	changed := make(chan struct{}, 1)
	poke := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	events, err := openInotify(string(dir))
	if err != nil {
		go func() {
			for pause(ctx, watchPause) == nil {
				poke()
			}
		}()
		return changed
	}
	stop := context.AfterFunc(ctx, func() { _ = events.SetReadDeadline(time.Unix(1, 0)) })
	go func() {
		defer events.Close()
		defer stop()
		// The events themselves say nothing that a look at the files doesn't.
		for buf := make([]byte, 4096); ; poke() {
			if _, err := events.Read(buf); err != nil {
				return
			}
		}
	}()
	return changed
}

func openInotify(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_MOVED_TO); err != nil {
		return nil, errors.Join(os.NewSyscallError("inotify_add_watch", err), events.Close())
	}
	return events, nil
}

// supervisorGone returns a channel that is closed once no supervisor holds the
// stage's lock: it has left a record, or it has been killed. The wait for a
// lock can't be interrupted; it ends with the stage or with this process.
//
// No file event does instead: the kernel reports a file closed before it lets
// go of the lock on it.
func supervisorGone(dir stageDir) <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		f, err := os.Open(dir.supervised())
		if err != nil {
			return
		}
		defer f.Close()
		_ = flock(f, unix.LOCK_SH)
	}()
	return gone
}
