package archive

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"time"
)

var errLater = errors.New("not there yet")

// Write packs the entries of root at paths, which are relative, need no order
// and do not stand for what is below them. Contents of links' targets are not
// packed. A file that was there and is gone counts as not listed.
func Write(ctx context.Context, root string, paths []string, sink Sink, o WriteOptions) (Summary, error) {
	return Summary{}, errLater
}

// TailSize is how much of the end of an archive to fetch for ReadIndex: enough
// for almost all.
func TailSize(size int64) int64 { return min(size, 1<<20) }

// ShortTailError says how much of an archive's end ReadIndex needs.
type ShortTailError struct{ Need int64 }

func (e *ShortTailError) Error() string { return "index is longer than the tail that was read" }

// ReadIndex reads the index from the last bytes of an archive of the given
// size. A *ShortTailError asks for more of them.
func ReadIndex(tail []byte, size int64, l Limits) (*Index, error) { return nil, errLater }

// Index is what an archive holds.
type Index struct{}

// Entry is one entry of an archive.
type Entry struct {
	Path    string
	Mode    fs.FileMode // type and permissions
	ModTime time.Time
	Size    int64
	Link    string // target of a symbolic link, path of the file that a hard link shares
	UID     int
	GID     int
}

// Entries are all entries in the archive's order.
func (x *Index) Entries() iter.Seq[Entry] { return func(func(Entry) bool) {} }

// Summary says what the archive holds.
func (x *Index) Summary() Summary { return Summary{} }

// Missing names what Restore would create in root and is not there yet:
// directories that are missing stand for all that is in them.
func (x *Index) Missing(root string) ([]string, error) { return nil, errLater }

// Restore creates in root what the archive holds. Files in the way are replaced
// at the very end, so an error leaves root as it was.
func Restore(ctx context.Context, root string, x *Index, fetch Fetch, o RestoreOptions) (Summary, error) {
	return Summary{}, errLater
}

// Remove takes away what a restore created: the list that it gave to Begin. What is
// not there is not missed.
func Remove(root string, created []string) error { return errLater }

// EncodeJournal makes of Begin's list the bytes to keep beside the restore.
func EncodeJournal(created []string) []byte { return nil }

// DecodeJournal is its reverse. An incomplete journal is an error: the restore
// had not begun when it was written.
func DecodeJournal(b []byte) ([]string, error) { return nil, errLater }

// Fingerprint is a digest of what a tree looks like from outside: paths, types,
// permissions, link targets, and files' sizes and modification times. It opens
// no file. Index.Summary has the fingerprint of what was saved.
func Fingerprint(ctx context.Context, root string, paths []string) (string, error) { return "", errLater }
