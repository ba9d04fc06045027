package archive

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// Errors that callers tell apart. Everything else comes from the file system,
// the Sink or the Fetch, and is wrapped.
var (
	// ErrEmpty means that there was nothing to save.
	ErrEmpty = errors.New("nothing to save")
	// ErrFormat is what every damaged or hostile archive is refused with.
	ErrFormat = errors.New("not a valid cache archive")
	// ErrLimit means that an archive is too large to be taken.
	ErrLimit = errors.New("cache is too large")
	// ErrOther means that an archive holds nothing of what is wanted of it.
	ErrOther = errors.New("it holds none of the cache's paths")
	// ErrConflict means that what is there already cannot be replaced: a
	// directory where the archive has a file, or the reverse.
	ErrConflict = errors.New("in the way of the cache")
)

// Sink takes a finished archive away in parts of the same size; only the last
// may be smaller.
type Sink interface {
	// Part is called by several goroutines at once, for parts in about their
	// order. The data is valid until it returns.
	Part(ctx context.Context, p Part) error
}

// Part is a piece of an archive.
type Part struct {
	Number int // from 1
	Last   bool
	Data   []byte
}

// Fetch opens n bytes of the archive from an offset on. It is called by several
// goroutines at once. What it returns gives exactly n bytes or an error: trying
// again is its own business.
type Fetch func(ctx context.Context, offset, n int64) (io.ReadCloser, error)

// Progress counts while Write or Restore works; any goroutine may read it.
type Progress struct {
	Files atomic.Int64 // read or created
	Bytes atomic.Int64 // of files' contents
	Wire  atomic.Int64 // compressed bytes
}

// Summary says what an archive holds.
type Summary struct {
	Entries     int           // files, links and directories
	Files       int           // files only
	Bytes       int64         // of files' contents
	Size        int64         // of the archive
	Digest      string        // SHA-256 of the index in hex: it stands for everything
	Fingerprint string        // of the tree: see Fingerprint
	Skipped     []string      // sockets, pipes and devices, which no cache holds: the first few
	FirstFile   time.Duration // Restore: from its start to the first file created
}

// WriteOptions change how Write works. Zero values mean the defaults.
type WriteOptions struct {
	PartSize int // bytes: 8 MiB
	Uploads  int // parts under way at once: 3
	Workers  int // reading and compressing: one for each processor, at most 16
	// Memory is the limit of the program's container; less than the defaults
	// is done at once where they would not fit. 0 means that there is none.
	Memory   int64
	Limits   Limits
	Progress *Progress
}

// RestoreOptions change how Restore works. Zero values mean the defaults.
type RestoreOptions struct {
	Connections int   // ranges under way at once: 8
	Workers     int   // decoding and creating files: two for each processor, at most 16
	Memory      int64 // as for WriteOptions
	Progress    *Progress
	// Begin is called before anything is created, with what will be: what
	// Remove takes away if this process does not live to do so. An error ends
	// the restore.
	Begin func(created []string) error
	// Allow refuses entries: those outside the cache's own paths. It is called
	// for files, links and directories that the archive has of its own, not for
	// those that only lead there. Nil allows all.
	Allow func(path string) bool
}
