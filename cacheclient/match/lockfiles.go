package match

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/bmatcuk/doublestar/v4"

	"podlane/cacheclient/key"
	"podlane/internal/pick"
)

// Lockfiles returns the regular files that one of the globs matches, sorted,
// with their digests. Of a git checkout only tracked files count: what a
// restored cache or a script has put there, a lockfile somewhere in node_modules
// for instance, would make another key of the same commit.
func Lockfiles(ctx context.Context, project string, globs []string) (files []key.Lockfile, notes []string, err error) {
	root, err := os.OpenRoot(project)
	if err != nil {
		return nil, nil, fmt.Errorf("open the project directory: %w", err)
	}
	defer root.Close()
	var patterns []string
	for _, glob := range globs {
		rel, err := pick.Relative([]string{project}, glob)
		if err == nil && !doublestar.ValidatePattern(rel) {
			err = doublestar.ErrBadPattern
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", glob, err)
		}
		patterns = append(patterns, rel)
	}
	names, err := tracked(ctx, root, patterns)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		sum, err := sumOf(root, name)
		if err != nil {
			notes = append(notes, err.Error())
			continue
		}
		files = append(files, key.Lockfile{Path: name, Sum: sum})
	}
	return files, notes, nil
}

// tracked returns the regular files that match, sorted: those in git's index
// or, where the project is no git checkout, all.
func tracked(ctx context.Context, root *os.Root, patterns []string) ([]string, error) {
	var names []string
	if _, err := root.Lstat(gitDir); err != nil {
		for _, pattern := range patterns {
			found, err := doublestar.Glob(root.FS(), pattern, doublestar.WithNoFollow())
			if err != nil {
				return nil, fmt.Errorf("%s: %w", pattern, err)
			}
			names = append(names, found...)
		}
	} else {
		listed, err := pick.ListFiles(ctx, root.Name(), "--cached", "--recurse-submodules")
		if err != nil {
			return nil, err
		}
		for _, name := range listed {
			if slices.ContainsFunc(patterns, func(pattern string) bool { return matches(pattern, name) }) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool {
		info, err := root.Lstat(name)
		return err != nil || !info.Mode().IsRegular()
	}), ctx.Err()
}

func sumOf(root *os.Root, name string) (sum [sha256.Size]byte, err error) {
	f, err := root.Open(name)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, fmt.Errorf("%s: %w", name, err)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
