// Package pick finds the files that artifacts: and cache: name: paths and globs
// relative to the project directory, directories with all that is in them, and
// what git does not track. Links are never followed out of the project.
package pick

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"golang.org/x/sys/unix"
)

// ErrOutside says that a path does not lie in the project.
var ErrOutside = errors.New("not a subpath of the project directory")

// Picker collects files of one project. Names are relative to the project
// directory and use slashes.
type Picker struct {
	root     *os.Root
	dirs     []string // absolute spellings of the project directory
	warn     func(name string, err error)
	exclude  []string
	found    []string
	excluded map[string]int  // by pattern
	visited  map[string]bool // by the path that is being looked up; nil: nothing is met twice
}

// New returns a picker for the project directory that root is. warn is told of
// files that can't be looked at; they are left out.
func New(root *os.Root, warn func(name string, err error)) (*Picker, error) {
	dirs, err := spellings(root.Name())
	if err != nil {
		return nil, fmt.Errorf("find the project directory: %w", err)
	}
	return &Picker{root: root, dirs: dirs, warn: warn, excluded: map[string]int{}}, nil
}

// spellings returns the absolute names that dir may go by: as the caller has it
// and with links resolved.
func spellings(dir string) ([]string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	resolved, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return nil, err
	}
	return slices.Compact([]string{abs, resolved}), nil
}

// Dir is the project directory's absolute name.
func (p *Picker) Dir() string { return p.dirs[0] }

// Exclude leaves out what matches from what is added later.
func (p *Picker) Exclude(pattern string) error {
	rel, err := Relative(p.dirs, pattern)
	if err != nil {
		return err
	}
	p.exclude = append(p.exclude, rel)
	return nil
}

// Excluded tells how many files each pattern of Exclude has left out, if any.
func (p *Picker) Excluded() map[string]int { return p.excluded }

// Names returns what was found, in the order of Compare.
func (p *Picker) Names() []string {
	// One directory's walk has that order already, and sorting 50,000 names
	// costs as much as the walk.
	if !slices.IsSortedFunc(p.found, Compare) {
		slices.SortFunc(p.found, Compare)
	}
	p.found = slices.Compact(p.found)
	return p.found
}

// Add adds what a path or glob names and returns how many files, directories
// and links that are. ErrOutside and a glob's mistakes are its errors.
func (p *Picker) Add(ctx context.Context, pattern string) (int, error) {
	rel, err := Relative(p.dirs, pattern)
	if err != nil {
		return 0, err
	}
	matches, err := p.glob(rel)
	if err != nil {
		return 0, err
	}
	p.visited = nil
	if len(matches) > 1 {
		p.visited = map[string]bool{}
	}
	count := 0
	for _, match := range matches {
		if !p.visited[match] { // ** matches a directory and everything in it
			count += p.addTree(ctx, match)
		}
	}
	return count, nil
}

// Relative turns a pattern, which may be absolute or have dots in it, into one
// that is relative to the project directory, of which dirs are the spellings.
func Relative(dirs []string, pattern string) (string, error) {
	base, glob := pattern, ""
	if IsGlob(pattern) {
		base, glob = doublestar.SplitPattern(pattern)
	}
	if filepath.IsAbs(base) {
		inside := false
		for _, dir := range dirs {
			if rel, err := filepath.Rel(dir, base); err == nil && filepath.IsLocal(rel) {
				base, inside = rel, true
				break
			}
		}
		if !inside {
			return "", ErrOutside
		}
	}
	rel := path.Join(base, glob)
	if !filepath.IsLocal(rel) {
		return "", ErrOutside
	}
	return rel, nil
}

// IsGlob reports whether a path is more than a plain name.
func IsGlob(pattern string) bool { return strings.ContainsAny(pattern, `*?[{`) }

func (p *Picker) glob(rel string) ([]string, error) {
	if !IsGlob(rel) { // a plain name may be a link that points nowhere
		return []string{rel}, nil
	}
	return doublestar.Glob(p.root.FS(), rel, doublestar.WithNoFollow())
}

// addTree adds name and everything below it and returns how many it added. A
// link is added as such.
func (p *Picker) addTree(ctx context.Context, name string) int {
	info, err := p.root.Lstat(name)
	if err != nil {
		p.unreadable(name, err)
		return 0
	}
	if !info.IsDir() {
		return p.add(name)
	}
	dir, err := p.root.Open(name)
	if err != nil {
		p.unreadable(name, err)
		return p.add(name)
	}
	return p.addDir(ctx, dir, name)
}

// addDir adds a directory and everything below it, and closes it. Each directory
// is opened in the one that it is in, and never through a link: a look-up from
// the project's root on costs as much as there are directories on the way.
func (p *Picker) addDir(ctx context.Context, dir *os.File, name string) int {
	defer dir.Close()
	count := 0
	if !p.visited[name] {
		count = p.add(name)
	}
	entries, err := dir.ReadDir(-1)
	if err != nil {
		p.unreadable(name, err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		below := e.Name()
		if name != "." {
			below = name + "/" + below
		}
		if e.IsDir() {
			sub, err := openDir(dir, e.Name())
			if err == nil {
				count += p.addDir(ctx, sub, below)
				continue
			}
			p.unreadable(below, err)
		}
		if !p.visited[below] {
			count += p.add(below)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return count
}

// openDir opens a directory in its parent.
func openDir(parent *os.File, name string) (*os.File, error) {
	for {
		fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), filepath.Join(parent.Name(), name)), nil
		case !errors.Is(err, unix.EINTR):
			return nil, err
		}
	}
}

// add returns the number of files added: 0 if name is excluded.
func (p *Picker) add(name string) int {
	if p.visited != nil {
		p.visited[name] = true
	}
	if name == "." {
		return 0
	}
	for _, pattern := range p.exclude {
		if ok, err := doublestar.Match(pattern, name); err == nil && ok {
			p.excluded[pattern]++
			return 0
		}
	}
	p.found = append(p.found, name)
	return 1
}

func (p *Picker) unreadable(name string, err error) {
	if !errors.Is(err, fs.ErrNotExist) {
		p.warn(name, reason(err))
	}
}

// AddUntracked adds what git does not track, ignored files among it, and
// returns how many files that are.
func (p *Picker) AddUntracked(ctx context.Context) (int, error) {
	names, err := ListFiles(ctx, p.dirs[0], "-o")
	if err != nil {
		return 0, err
	}
	p.visited = nil
	count := 0
	for _, name := range names {
		name = strings.TrimSuffix(name, "/")
		if _, err := p.root.Lstat(name); err != nil {
			p.unreadable(name, err)
			continue
		}
		count += p.add(name)
	}
	return count, nil
}

// ListFiles returns what `git ls-files` lists in a directory with the given
// flags, relative to it.
func ListFiles(ctx context.Context, dir string, flags ...string) ([]string, error) {
	// The repository's own configuration may name a program as fsmonitor; the
	// job's scripts can write it, and this is not the place to run it.
	// Whose files they are then matters no more.
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "core.fsmonitor=false", "-c", "safe.directory=*", "ls-files", "-z"}, flags...)...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w %s", err, stderr.String())
	}
	var names []string
	for name := range strings.SplitSeq(string(out), "\x00") {
		if name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

// reason strips the operation and the name from a file system error, for
// messages that name the file themselves.
func reason(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
