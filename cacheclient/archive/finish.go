package archive

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// finish does what has to wait until all files are there: links, then what
// replaces something, then the modes and times of directories.
func (t *tree) finish(ctx context.Context) error {
	p := newPlacer(t)
	defer p.close()
	steps := []func(*placer) error{t.symlinks, t.hardlinks, t.emptyDirs, t.replace, t.dressDirs}
	for _, step := range steps {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := step(p); err != nil {
			return err
		}
	}
	return nil
}

// retryStaged calls create, once more if a killed restore left its name.
func (t *tree) retryStaged(at, ordinal int, r *record, create func(name string) error) error {
	name := t.nameOf(ordinal, r.name)
	err := create(name)
	if errors.Is(err, unix.EEXIST) && t.survey.staged.has(ordinal) {
		if err := unix.Unlinkat(at, name, 0); err != nil {
			return err
		}
		err = create(name)
	}
	return err
}

func (t *tree) symlinks(p *placer) error {
	for w := t.index.walk(); w.next(); {
		if w.r.kind != kindSymlink {
			continue
		}
		at, err := p.enter(w.dir)
		if err != nil {
			return err
		}
		err = t.retryStaged(at, w.c.ordinal, &w.r, func(name string) error {
			if err := unix.Symlinkat(string(w.r.target), at, name); err != nil {
				return err
			}
			if t.owner != nil && (w.r.uid != t.owner.Uid || w.r.gid != t.owner.Gid) {
				if err := unix.Fchownat(at, name, int(w.r.uid), int(w.r.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
					return err
				}
			}
			return setTime(at, name, w.r.seconds, w.r.nanos)
		})
		if err != nil {
			return p.failed("create link", w.dir, &w.r, err)
		}
	}
	return nil
}

// shared is a file that hard links lead to.
type shared struct {
	dir  int32
	name string
}

func (t *tree) hardlinks(p *placer) error {
	links := t.index.links
	if len(links) == 0 {
		return nil
	}
	files := map[int]shared{}
	other := newPlacer(t) // stays where the files are
	defer other.close()
	for w := t.index.walk(); w.next(); {
		if len(links) > 0 && links[0] == w.c.ordinal {
			files[links[0]] = shared{dir: w.dir, name: t.nameOf(w.c.ordinal, w.r.name)}
			links = links[1:]
		}
		if w.r.kind != kindLink {
			continue
		}
		file := files[w.c.ordinal-int(w.r.back)]
		from, err := other.enter(file.dir)
		if err != nil {
			return err
		}
		at, err := p.enter(w.dir)
		if err != nil {
			return err
		}
		err = t.retryStaged(at, w.c.ordinal, &w.r, func(name string) error {
			return unix.Linkat(from, file.name, at, name, 0)
		})
		if err != nil {
			return p.failed("create link", w.dir, &w.r, err)
		}
	}
	return nil
}

func (t *tree) emptyDirs(p *placer) error {
	for d := range t.index.dirs {
		if d == root || t.made[d].Load() == 1 || t.survey.present.has(d) {
			continue
		}
		if _, err := p.enter(int32(d)); err != nil {
			return err
		}
	}
	return nil
}

// replace puts files and links where others are.
func (t *tree) replace(p *placer) error {
	if len(t.survey.staged) == 0 {
		return nil
	}
	for w := t.index.walk(); w.next(); {
		if !t.survey.staged.has(w.c.ordinal) {
			continue
		}
		at, err := p.enter(w.dir)
		if err == nil {
			stage := t.nameOf(w.c.ordinal, w.r.name)
			if err = unix.Renameat(at, stage, at, string(w.r.name)); err == nil {
				// Renaming one hard link of a file to another does nothing.
				if e := unix.Unlinkat(at, stage, 0); e != nil && e != unix.ENOENT {
					err = e
				}
			}
		}
		if err != nil {
			return p.failed("replace", w.dir, &w.r, err)
		}
	}
	return nil
}

// dressDirs goes from the leaves to the root: a directory that may not be
// written to comes after what is in it. Several goroutines do it, each a stretch
// of the tree: with 6,000 directories, one took a twentieth of a restore while
// the other processors had nothing to do. That needs all directories to stay open
// to their owner while the stretch before theirs is done.
func (t *tree) dressDirs(p *placer) error {
	dirs := t.index.dirs
	workers := runtime.GOMAXPROCS(0)
	if len(dirs) < 100*workers || slices.ContainsFunc(dirs[1:], t.locks) {
		return t.dressStretch(p, 1, len(dirs))
	}
	errs := make([]error, workers)
	var group sync.WaitGroup
	for i := range workers {
		begin, end := 1+i*(len(dirs)-1)/workers, 1+(i+1)*(len(dirs)-1)/workers
		group.Go(func() {
			p := newPlacer(t)
			defer p.close()
			errs[i] = t.dressStretch(p, begin, end)
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// locks reports whether a directory, once dressed, can keep its maker out.
func (t *tree) locks(d dir) bool {
	return !d.implied && (d.mode&0o100 == 0 || t.owner != nil && d.uid != t.owner.Uid)
}

func (t *tree) dressStretch(p *placer, begin, end int) error {
	for d := end - 1; d >= begin; d-- {
		dir := &t.index.dirs[d]
		if dir.implied {
			continue
		}
		at, err := p.enter(dir.parent)
		if err == nil {
			err = t.dressDir(at, d, dir)
		}
		if err != nil {
			return fmt.Errorf("set mode and time of directory %s: %w", quote(t.index.dirPath(int32(d))), err)
		}
	}
	return nil
}

func (t *tree) dressDir(at, d int, dir *dir) error {
	name := string(dir.name)
	asMade := (dir.mode|0o700)&^t.umask == dir.mode && !t.survey.present.has(d)
	mine := t.owner == nil || dir.uid == t.owner.Uid && dir.gid == t.owner.Gid
	if asMade && mine {
		return setTime(at, name, dir.seconds, dir.nanos)
	}
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !mine {
		if err := unix.Fchown(fd, int(dir.uid), int(dir.gid)); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, dir.mode); err != nil {
		return err
	}
	return setTime(fd, "", dir.seconds, dir.nanos)
}
