package archive

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setTime sets the modification time of an open file or, with a name, of what
// has that name in an open directory. The access time stays. unix.UtimesNanoAt
// cannot name an open file itself, which spares a look-up for each file.
func setTime(fd int, name string, seconds int64, nanos uint32) error {
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: seconds, Nsec: int64(nanos)}}
	if name != "" {
		return unix.UtimesNanoAt(fd, name, times[:], unix.AT_SYMLINK_NOFOLLOW)
	}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0) //nolint:gosec // as x/sys/unix does it
	runtime.KeepAlive(&times)
	if errno != 0 {
		return errno
	}
	return nil
}
