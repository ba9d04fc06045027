package artifacts

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// selection is what a job's artifacts: block says about files.
type selection struct {
	paths, exclude stringList
	untracked      bool
}

func (s *selection) register(set *flag.FlagSet) {
	set.Var(&s.paths, "path", "file, directory or glob to send; may be repeated")
	set.Var(&s.exclude, "exclude", "glob of files to leave out; may be repeated")
	set.BoolVar(&s.untracked, "untracked", false, "send what git does not track")
	set.Bool("verbose", false, "accepted, without effect")
}

// finder collects the files of a selection. Names are relative to the project
// directory and use slashes.
type finder struct {
	root     *os.Root
	dirs     []string // absolute spellings of the project directory
	log      lines
	exclude  []string
	found    map[string]fs.FileMode
	excluded map[string]int  // by pattern
	visited  map[string]bool // by the path that is being looked up
}

// find returns the names of the selected files, directories and links, sorted,
// and says for each path how many there were. What cannot be used, such as a
// path outside the project, is a warning, not an error: so it is with the
// runner. Links are never followed out of the project.
func find(ctx context.Context, root *os.Root, selected selection, log lines) ([]string, error) {
	dirs, err := spellings(root.Name())
	if err != nil {
		return nil, fmt.Errorf("find the project directory: %w", err)
	}
	f := &finder{root: root, dirs: dirs, log: log, found: map[string]fs.FileMode{}, excluded: map[string]int{}}
	for _, pattern := range selected.exclude {
		rel, err := f.relative(pattern)
		if err != nil {
			log.warn("exclude %s: %v", pattern, err)
			continue
		}
		f.exclude = append(f.exclude, rel)
	}
	for _, pattern := range selected.paths {
		f.addPath(ctx, pattern)
	}
	if selected.untracked {
		f.addUntracked(ctx)
	}
	for _, pattern := range slices.Sorted(maps.Keys(f.excluded)) {
		log.info("%s: excluded %d files", pattern, f.excluded[pattern])
	}
	return slices.Sorted(maps.Keys(f.found)), ctx.Err()
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

func (f *finder) addPath(ctx context.Context, pattern string) {
	if pattern == "" {
		f.log.warn("No matching files. Path is empty.")
		return
	}
	rel, err := f.relative(pattern)
	if err != nil {
		f.log.warn("%s: %v", pattern, err)
		return
	}
	matches, err := f.glob(rel)
	if err != nil {
		f.log.warn("%s: %v", pattern, err)
		return
	}
	f.visited = map[string]bool{}
	count := 0
	for _, match := range matches {
		if !f.visited[match] { // ** matches a directory and everything in it
			count += f.addTree(ctx, match)
		}
	}
	if count == 0 {
		f.log.warn("%s: no matching files. Ensure that the artifact path is relative to the working directory (%s)", pattern, f.dirs[0])
		return
	}
	f.log.info("%s: found %d matching artifact files and directories", pattern, count)
}

var errOutside = errors.New("artifact path is not a subpath of project directory")

// relative turns a pattern, which may be absolute or have dots in it, into one
// that is relative to the project directory.
func (f *finder) relative(pattern string) (string, error) {
	base, glob := pattern, ""
	if isGlob(pattern) {
		base, glob = doublestar.SplitPattern(pattern)
	}
	if filepath.IsAbs(base) {
		inside := false
		for _, dir := range f.dirs {
			if rel, err := filepath.Rel(dir, base); err == nil && filepath.IsLocal(rel) {
				base, inside = rel, true
				break
			}
		}
		if !inside {
			return "", errOutside
		}
	}
	rel := path.Join(base, glob)
	if !filepath.IsLocal(rel) {
		return "", errOutside
	}
	return rel, nil
}

func isGlob(pattern string) bool { return strings.ContainsAny(pattern, `*?[{`) }

func (f *finder) glob(rel string) ([]string, error) {
	if !isGlob(rel) { // a plain name may be a link that points nowhere
		return []string{rel}, nil
	}
	return doublestar.Glob(f.root.FS(), rel, doublestar.WithNoFollow())
}

// addTree adds name and everything below it and returns how many it added. A
// link is added as such.
func (f *finder) addTree(ctx context.Context, name string) int {
	info, err := f.root.Lstat(name)
	if err != nil {
		f.unreadable(name, err)
		return 0
	}
	if !info.IsDir() {
		return f.add(name, info.Mode())
	}
	count := 0
	err = fs.WalkDir(f.root.FS(), name, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			f.unreadable(name, err)
		case !f.visited[name]:
			count += f.add(name, entry.Type())
		}
		return ctx.Err()
	})
	if err != nil {
		f.log.warn("%s: %v", name, err)
	}
	return count
}

// add returns the number of files added: 0 if name is excluded.
func (f *finder) add(name string, mode fs.FileMode) int {
	f.visited[name] = true
	if name == "." {
		return 0
	}
	for _, pattern := range f.exclude {
		if ok, err := doublestar.Match(pattern, name); err == nil && ok {
			f.excluded[pattern]++
			return 0
		}
	}
	f.found[name] = mode
	return 1
}

func (f *finder) unreadable(name string, err error) {
	if !errors.Is(err, fs.ErrNotExist) {
		f.log.warn("%s: %v", name, reason(err))
	}
}

// addUntracked adds what git does not track, ignored files among it.
func (f *finder) addUntracked(ctx context.Context) {
	// The repository's own configuration may name a program as fsmonitor; the
	// job's scripts can write it, and this is not the place to run it.
	cmd := exec.CommandContext(ctx, "git", "-c", "core.fsmonitor=false", "ls-files", "-o", "-z")
	cmd.Dir = f.dirs[0]
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		f.log.warn("untracked: git ls-files: %v %s", err, stderr.String())
		return
	}
	f.visited = map[string]bool{}
	count := 0
	for name := range strings.SplitSeq(string(out), "\x00") {
		if name == "" {
			continue
		}
		info, err := f.root.Lstat(strings.TrimSuffix(name, "/"))
		if err != nil {
			f.unreadable(name, err)
			continue
		}
		count += f.add(strings.TrimSuffix(name, "/"), info.Mode())
	}
	if count == 0 {
		f.log.warn("untracked: no files")
		return
	}
	f.log.info("untracked: found %d files", count)
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
