package key

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"
)

// LockfilesPrefix starts the names of the variables that hold globs of
// lockfiles. Where a key says $LOCKFILES_NODE, the digest of the files that
// LOCKFILES_NODE matches takes its place.
const LockfilesPrefix = "LOCKFILES_"

// Globs returns the globs in a variable's value; white space separates them.
func Globs(value string) []string { return strings.Fields(value) }

// Lockfile is a file that a key depends on.
type Lockfile struct {
	// Path is relative to the project directory, with slashes.
	Path string `json:"path"`
	// Sum is the SHA-256 of the contents.
	Sum [sha256.Size]byte `json:"-"`
}

// ErrNoLockfile says that the globs of a LOCKFILES_ variable match no file. A key
// that is the same whatever the lockfiles hold would be wrong for ever.
var ErrNoLockfile = errors.New("no lockfile matches")

// Digest returns 40 hex digits that change when a lockfile's contents or path
// change, or when one comes or goes. The files' order doesn't matter. It is the
// start of the SHA-256 of, for every file by path, its path's length (8 bytes,
// big-endian), its path and the SHA-256 of its contents; as long as a digest of
// GitLab's own so that both kinds of keys look alike.
func Digest(files []Lockfile) (string, error) {
	if len(files) == 0 {
		return "", ErrNoLockfile
	}
	h := sha256.New()
	for _, f := range byPath(files) {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(f.Path)))
		h.Write(length[:])
		h.Write([]byte(f.Path))
		h.Write(f.Sum[:])
	}
	return hex.EncodeToString(h.Sum(nil)[:20]), nil
}

// byPath returns the files sorted, each once: two globs may match one file.
func byPath(files []Lockfile) []Lockfile {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b Lockfile) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), slices.Compare(a.Sum[:], b.Sum[:]))
	})
	return slices.Compact(files)
}

// Marks are lockfiles as an entry's metadata has them: paths with the first 8
// hex digits of their contents' digests. That is enough to say what changed,
// and not to trust.
type Marks map[string]string

// MarksOf returns the marks of the lockfiles that a key was made from.
func MarksOf(files []Lockfile) Marks {
	marks := make(Marks, len(files))
	for _, f := range files {
		marks[f.Path] = hex.EncodeToString(f.Sum[:4])
	}
	return marks
}

// Paths returns the lockfiles' paths, sorted.
func (m Marks) Paths() []string { return slices.Sorted(maps.Keys(m)) }

// Changes says, one phrase a file and sorted by path, what differs between the
// lockfiles of an earlier entry and those of now: "go.sum changed", "a/go.sum
// is new", "b/go.sum is gone". It is what a miss can be explained with.
func Changes(before, now Marks) []string {
	paths := map[string]string{}
	for path, mark := range now {
		switch old, ok := before[path]; {
		case !ok:
			paths[path] = " is new"
		case old != mark:
			paths[path] = " changed"
		}
	}
	for path := range before {
		if _, ok := now[path]; !ok {
			paths[path] = " is gone"
		}
	}
	var out []string
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		out = append(out, path+paths[path])
	}
	return out
}
