package archive

import "runtime"

// maxWorkers bounds memory on machines with many processors: each worker holds
// a frame.
const maxWorkers = 16

// What a save and a restore take, so that they fit where memory is limited. A
// program that does nothing takes 12 MiB; the garbage collector needs room, and
// so does the kernel for files that are not on the disk yet.
const (
	programMemory = 24 << 20
	// restoreWorker is a decoded frame and the one to decode; restoreRange a
	// frame on its way.
	restoreWorker = 9 << 20
	restoreRange  = 5 << 20
	// writeWorker is a segment, the encoder's copy of it, and compressed ones.
	writeWorker = 17 << 20
	// smallPart is the smallest that S3 takes.
	smallPart = 5 << 20
)

// room is how much of a limit buffers may take.
func room(limit int64) int64 { return limit*3/4 - programMemory }

// workersWithin is how many workers fit into memory, at least one.
func workersWithin(workers int, memory, each int64) int {
	return max(1, min(workers, int(memory/each)))
}

// fit makes a restore small enough for the memory that there is.
func (o *RestoreOptions) fit() {
	if o.Workers == 0 {
		o.Workers = min(2*runtime.GOMAXPROCS(0), maxWorkers)
	}
	if o.Memory <= 0 {
		return
	}
	memory := room(o.Memory)
	o.Workers = workersWithin(o.Workers, memory, restoreWorker+restoreRange)
	o.Connections = workersWithin(o.Connections, memory-int64(o.Workers)*restoreWorker, restoreRange)
}

// fit makes a save small enough for the memory that there is.
func (o *WriteOptions) fit() {
	if o.Workers == 0 {
		o.Workers = min(runtime.GOMAXPROCS(0), maxWorkers)
	}
	if o.Memory <= 0 {
		return
	}
	memory := room(o.Memory)
	if memory < int64(o.Uploads*o.PartSize)+writeWorker {
		o.PartSize, o.Uploads = smallPart, 2
	}
	o.Workers = workersWithin(o.Workers, memory-int64(o.Uploads*o.PartSize), writeWorker)
}
