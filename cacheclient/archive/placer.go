package archive

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// tree is what a restore creates, shared by its workers.
type tree struct {
	index  *Index
	root   *rootDir
	survey survey
	umask  uint32
	owner  *unix.Stat_t    // who files belong to if nothing is done; nil: owners are left alone
	made   []atomic.Uint32 // for each directory: 1 if it is there
}

// placer creates files in the directories of a tree. It keeps the way to the
// last directory open, as a walker does, and creates directories when it first
// enters them: no pass over all directories holds up the first file.
type placer struct {
	tree *tree
	open []openDir // root first
	path []int32   // scratch
}

type openDir struct {
	dir int32
	fd  int
}

func newPlacer(t *tree) *placer { return &placer{tree: t, open: []openDir{{dir: root, fd: t.root.fd}}} }

func (p *placer) close() { p.leave(1) }

func (p *placer) leave(n int) {
	for _, o := range p.open[n:] {
		_ = unix.Close(o.fd)
	}
	p.open = p.open[:n]
}

// enter opens a directory of the index, creating what is missing on the way.
func (p *placer) enter(dir int32) (int, error) {
	if top := p.open[len(p.open)-1]; top.dir == dir {
		return top.fd, nil
	}
	dirs := p.tree.index.dirs
	p.path = p.path[:0]
	for d := dir; d != root; d = dirs[d].parent {
		p.path = append(p.path, d)
	}
	keep := 1
	for keep < len(p.open) && keep <= len(p.path) && p.path[len(p.path)-keep] == p.open[keep].dir {
		keep++
	}
	p.leave(keep)
	for i := len(p.path) - keep; i >= 0; i-- {
		d := p.path[i]
		fd, err := p.tree.openDir(p.open[len(p.open)-1].fd, d)
		if err != nil {
			return 0, fmt.Errorf("create directory %s: %w", quote(p.tree.index.dirPath(d)), err)
		}
		p.open = append(p.open, openDir{dir: d, fd: fd})
	}
	return p.open[len(p.open)-1].fd, nil
}

// openDir opens a directory in its parent, and creates it if nobody has.
func (t *tree) openDir(parent int, d int32) (int, error) {
	dir := &t.index.dirs[d]
	name := string(dir.name)
	if t.made[d].Load() == 0 && !t.survey.present.has(int(d)) {
		mode := uint32(0o777)
		if !dir.implied {
			mode = dir.mode | 0o700 // its own comes last
		}
		// Another worker may have been quicker.
		if err := unix.Mkdirat(parent, name, mode); err != nil && err != unix.EEXIST {
			return 0, err
		}
		t.made[d].Store(1)
	}
	return ignoringEINTR(func() (int, error) { return unix.Openat(parent, name, openDirFlags, 0) })
}

// dirPath is for messages.
func (x *Index) dirPath(d int32) string {
	path := ""
	for ; d != root; d = x.dirs[d].parent {
		path = string(x.dirs[d].name) + "/" + path
	}
	return path
}

// nameOf is the name to create an entry by.
func (t *tree) nameOf(ordinal int, name []byte) string {
	if t.survey.staged.has(ordinal) {
		return t.index.stageName(name)
	}
	return string(name)
}

// create opens a new file. O_EXCL does not follow a link either, and finds
// names that a file system takes for the same.
func (p *placer) create(dir int32, ordinal int, r *record) (int, error) {
	at, err := p.enter(dir)
	if err != nil {
		return 0, err
	}
	name := p.tree.nameOf(ordinal, r.name)
	for {
		fd, err := unix.Openat(at, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, r.mode)
		switch {
		case err == nil:
			return fd, nil
		case err == unix.EEXIST && name != string(r.name):
			// What an earlier restore of this archive left when it was killed.
			if err := unix.Unlinkat(at, name, 0); err != nil {
				return 0, p.failed("replace", dir, r, err)
			}
		case err != unix.EINTR:
			return 0, p.failed("create", dir, r, err)
		}
	}
}

func (p *placer) failed(what string, dir int32, r *record, err error) error {
	return fmt.Errorf("%s %s: %w", what, quote(p.tree.index.dirPath(dir)+string(r.name)), err)
}

// file creates a file with its contents: four system calls.
func (p *placer) file(dir int32, ordinal int, r *record, data []byte) error {
	fd, err := p.create(dir, ordinal, r)
	if err != nil {
		return err
	}
	err = writeAt(fd, data, 0)
	if err == nil {
		err = p.tree.dress(fd, r)
	}
	if e := unix.Close(fd); err == nil {
		err = e
	}
	if err != nil {
		return p.failed("write", dir, r, err)
	}
	return nil
}

// dress gives an open file its owner, mode and time, as far as it lacks them.
func (t *tree) dress(fd int, r *record) error {
	if t.owner != nil && (r.uid != t.owner.Uid || r.gid != t.owner.Gid) {
		if err := unix.Fchown(fd, int(r.uid), int(r.gid)); err != nil {
			return err
		}
	}
	if r.mode&t.umask != 0 {
		if err := unix.Fchmod(fd, r.mode); err != nil {
			return err
		}
	}
	return setTime(fd, "", r.seconds, r.nanos)
}

// writeAt writes b; large pieces need more than one call.
func writeAt(fd int, b []byte, offset int64) error {
	for len(b) > 0 {
		n, err := ignoringEINTR(func() (int, error) { return unix.Pwrite(fd, b, offset) })
		if err != nil {
			return err
		}
		b, offset = b[n:], offset+int64(n)
	}
	return nil
}
