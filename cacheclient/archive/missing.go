package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// survey is what a restore finds in its root before it begins.
type survey struct {
	present bitset // directories of Index.dirs that are there
	staged  bitset // entries in whose place there is something to be replaced
	created []string
}

// stagePrefix begins the names of files that wait to replace others. The rest
// of the name comes from the archive and the path, so that a later session finds
// what a killed one left.
const stagePrefix = ".podlane-"

// stageName is the name that an entry has until it replaces what is in its place.
func (x *Index) stageName(name []byte) string {
	digest := sha256.Sum256(append([]byte(x.summary.Digest+"/"), name...))
	return stagePrefix + hex.EncodeToString(digest[:12])
}

// Missing names what Restore would create in root and is not there yet.
// A directory stands for all that is in it. ErrConflict means that something is
// there that Restore does not replace.
func (x *Index) Missing(root string) ([]string, error) {
	top, err := openRoot(root)
	if err != nil {
		return nil, err
	}
	defer top.close()
	s, err := x.survey(top, nil)
	return s.created, err
}

// survey looks at what is there. Below a missing directory it need not look.
func (x *Index) survey(top *rootDir, allow func(string) bool) (survey, error) {
	var s survey
	s.present.set(root)
	look := newWalker(top)
	defer look.close()
	w := x.walk()
	for w.next() {
		if allow == nil && !s.present.has(int(w.dir)) {
			continue
		}
		path := string(w.path) + string(w.r.name)
		if allow != nil && w.r.kind != kindImplied && !allow(path) {
			return s, fmt.Errorf("%w: it has %s, which is none of the cache's paths", ErrFormat, quote(path))
		}
		if !s.present.has(int(w.dir)) {
			continue
		}
		var st unix.Stat_t
		at, err := look.enter(strings.TrimSuffix(string(w.path), "/"))
		if err == nil {
			_, err = ignoringEINTR(func() (int, error) {
				return 0, unix.Fstatat(at, string(w.r.name), &st, unix.AT_SYMLINK_NOFOLLOW)
			})
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		switch {
		case errors.Is(err, unix.ENOENT):
			s.created = append(s.created, path)
		case err != nil:
			return s, fmt.Errorf("look at %s: %w", quote(path), err)
		case w.r.kind.isDir() && isDir:
			s.present.set(w.c.dirs)
		case w.r.kind.isDir():
			return s, fmt.Errorf("%w: the cache has a directory %s, there is something else", ErrConflict, quote(path))
		case isDir:
			return s, fmt.Errorf("%w: there is a directory %s, the cache has something else", ErrConflict, quote(path))
		default:
			s.staged.set(w.c.ordinal)
			s.created = append(s.created, string(w.path)+x.stageName(w.r.name))
		}
	}
	return s, nil
}

// Remove takes away what a restore created: the list that it gave to Begin.
// What is not there is not missed. It follows no links and goes on after an
// error.
func Remove(root string, created []string) error {
	r, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer r.Close()
	var errs []error
	for _, path := range created {
		err := r.RemoveAll(path)
		if errors.Is(err, fs.ErrPermission) {
			unlock(r, path)
			err = r.RemoveAll(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// unlock makes directories writable: those of a Go module cache are not.
func unlock(r *os.Root, path string) {
	_ = fs.WalkDir(r.FS(), path, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = r.Chmod(p, 0o700)
		}
		return err
	})
}
