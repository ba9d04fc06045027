package archive

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// errSpecial is a socket, pipe or device: no cache holds those.
var errSpecial = errors.New("neither file, directory nor link")

// openDirFlags open a directory to work in, and never through a symbolic link.
const openDirFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// rootDir is the directory that all paths are relative to.
type rootDir struct{ fd int }

// openRoot opens a directory that its name may lead to over links: what is above
// the root is whoever called us's.
func openRoot(path string) (*rootDir, error) {
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Open(path, openDirFlags&^unix.O_NOFOLLOW, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &rootDir{fd: fd}, nil
}

func (r *rootDir) close() { _ = unix.Close(r.fd) }

// walker opens the directories of paths one component after the other, so that
// no link is followed, and keeps them open as long as paths stay below them:
// in the order of a walk that is one open for each directory.
type walker struct {
	root *rootDir
	dir  string // that is open now, without a slash behind it
	open []opened
}

type opened struct {
	fd  int
	end int // of its path in walker.dir
}

func newWalker(r *rootDir) *walker { return &walker{root: r} }

func (w *walker) close() { w.leave(0) }

// leave closes all but the first n directories.
func (w *walker) leave(n int) {
	for _, o := range w.open[n:] {
		_ = unix.Close(o.fd)
	}
	w.open = w.open[:n]
	w.dir = w.dir[:w.end()]
}

func (w *walker) end() int {
	if len(w.open) == 0 {
		return 0
	}
	return w.open[len(w.open)-1].end
}

func (w *walker) fd() int {
	if len(w.open) == 0 {
		return w.root.fd
	}
	return w.open[len(w.open)-1].fd
}

// enter opens a directory.
func (w *walker) enter(dir string) (int, error) {
	if dir == w.dir {
		return w.fd(), nil
	}
	keep := 0
	for keep < len(w.open) && within(dir, w.dir[:w.open[keep].end]) {
		keep++
	}
	w.leave(keep)
	for w.end() < len(dir) {
		begin := w.end()
		if begin > 0 {
			begin++ // the slash
		}
		end := len(dir)
		if i := strings.IndexByte(dir[begin:], '/'); i >= 0 {
			end = begin + i
		}
		fd, err := ignoringEINTR(func() (int, error) { return unix.Openat(w.fd(), dir[begin:end], openDirFlags, 0) })
		if err != nil {
			return 0, fmt.Errorf("open directory %s: %w", quote(dir[:end]), err)
		}
		w.open = append(w.open, opened{fd: fd, end: end})
		w.dir = dir[:end]
	}
	return w.fd(), nil
}

// within reports whether a path is dir or below it.
func within(path, dir string) bool {
	return strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}

// stat says what is at a path, without following links.
func (w *walker) stat(path string, r *record) error {
	_, err := w.statAll(path, r)
	return err
}

func (w *walker) statAll(path string, r *record) (unix.Stat_t, error) {
	var st unix.Stat_t
	dir, name := splitPath(path)
	fd, err := w.enter(dir)
	if err != nil {
		return st, err
	}
	for {
		err = unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return st, fmt.Errorf("stat %s: %w", quote(path), err)
	}
	*r = record{
		name: []byte(name), mode: st.Mode & permissions, uid: st.Uid, gid: st.Gid,
		seconds: st.Mtim.Sec, nanos: uint32(st.Mtim.Nsec),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		r.kind = kindDir
	case unix.S_IFREG:
		r.kind, r.size = kindFile, st.Size
	case unix.S_IFLNK:
		r.kind, r.mode = kindSymlink, 0
		r.target, err = readlink(fd, name)
		if err != nil {
			return st, fmt.Errorf("read link %s: %w", quote(path), err)
		}
	default:
		return st, errSpecial
	}
	return st, nil
}

func readlink(dir int, name string) ([]byte, error) {
	b := make([]byte, pathMax+1)
	n, err := ignoringEINTR(func() (int, error) { return unix.Readlinkat(dir, name, b) })
	return b[:max(n, 0):max(n, 0)], err
}

// splitPath splits a clean relative path; the root's own directory is "".
func splitPath(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

// ignoringEINTR repeats a call that a signal interrupted.
func ignoringEINTR[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}

// quote makes a name fit for a message: names may be anything.
func quote(s string) string {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '"' {
			return fmt.Sprintf("%q", s)
		}
	}
	return s
}
