package podagent

import (
	"runtime"
	"sync"
)

// processors is how many threads of podlane-helper's small processes run Go code
// at a time.
const processors = 2

// spareThreads are for goroutines that wait in system calls, and for the
// runtime's own.
const spareThreads = 8

// HoldThreads starts all threads now that this process will need. A script may
// use up what processes its container may have, and Go's runtime ends a process
// that cannot start a thread: the script would take its supervisor with it. The
// runtime keeps threads that have nothing to do.
func HoldThreads() {
	runtime.GOMAXPROCS(min(processors, runtime.GOMAXPROCS(0)))
	var there, gone sync.WaitGroup
	there.Add(processors + spareThreads)
	release := make(chan struct{})
	for range processors + spareThreads {
		gone.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			there.Done()
			<-release
		})
	}
	there.Wait()
	close(release)
	gone.Wait()
}
