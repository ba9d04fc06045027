// Package match finds the files that a cache is made of, and the lockfiles that
// its key depends on. It is the pod's side: it looks at the checkout.
package match

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"podlane/internal/pick"
)

// Selection is what a cache: block says about files.
type Selection struct {
	// Paths are paths and globs, relative to the project directory or absolute
	// names in it. A directory means all that is in it.
	Paths []string
	// Untracked adds what git doesn't track, ignored files among it.
	Untracked bool
}

// Found is what there is of a selection.
type Found struct {
	// Paths are files, directories and links, relative to the project
	// directory and sorted. Directories are named beside what is in them.
	Paths []string
	// Notes say, one line each, which path was refused or matched nothing and
	// which file could not be looked at.
	Notes []string
}

// maxNotes bounds the notes: a tree that can't be read may have any number of
// reasons.
const maxNotes = 20

func (f *Found) note(format string, args ...any) {
	switch {
	case len(f.Notes) < maxNotes:
		f.Notes = append(f.Notes, fmt.Sprintf(format, args...))
	case len(f.Notes) == maxNotes:
		f.Notes = append(f.Notes, "and more")
	}
}

// Find returns what there is of a selection in the project directory. As with
// GitLab Runner, a path that leads out of the project or matches nothing is no
// error. Links are never followed out of the project; one that points out is
// found as the link that it is.
func Find(ctx context.Context, project string, s Selection) (Found, error) {
	root, err := os.OpenRoot(project)
	if err != nil {
		return Found{}, fmt.Errorf("open the project directory: %w", err)
	}
	defer root.Close()
	var found Found
	picker, err := pick.New(root, func(name string, err error) { found.note("%s: %v", name, err) })
	if err != nil {
		return Found{}, err
	}
	for _, pattern := range s.Paths {
		if pattern == "" {
			found.note("a path is empty")
			continue
		}
		switch count, err := picker.Add(ctx, pattern); {
		case err != nil:
			found.note("%s: %v", pattern, err)
		case count == 0:
			found.note("%s: no such files", pattern)
		}
	}
	if s.Untracked {
		if _, err := picker.AddUntracked(ctx); err != nil {
			found.note("untracked: %v", err)
		}
	}
	found.Paths = picker.Names()
	return found, ctx.Err()
}

// gitDir is never a cache's because of Untracked, which git itself never lists
// it for: a hook from there would run in the next job.
const gitDir = ".git"

// Allow returns a test for whether a path, relative to the project directory,
// may come out of a cache with this selection: it matches one of the paths, or
// lies below what does. Nothing needs to exist. With Untracked everything is
// allowed but .git, because it may have been untracked where the cache was made.
// The test is for one goroutine: it remembers the directory that it allowed last,
// because nearly all names that follow lie below it.
func Allow(project string, s Selection) func(name string) bool {
	var patterns []string
	for _, pattern := range s.Paths {
		if rel, err := pick.Relative([]string{project}, pattern); err == nil && pattern != "" {
			patterns = append(patterns, rel)
		}
	}
	everything := slices.Contains(patterns, ".")
	last := "" // with a slash behind it
	return func(name string) bool {
		if everything || last != "" && strings.HasPrefix(name, last) {
			return true
		}
		if s.Untracked && name != gitDir && !strings.HasPrefix(name, gitDir+"/") {
			return true
		}
		for ; name != "."; name = path.Dir(name) {
			if slices.ContainsFunc(patterns, func(pattern string) bool { return matches(pattern, name) }) {
				last = name + "/"
				return true
			}
		}
		return false
	}
}

// matches also takes a pattern without wildcards for a plain name.
func matches(pattern, name string) bool {
	if pattern == name {
		return true
	}
	ok, err := doublestar.Match(pattern, name)
	return err == nil && ok
}
