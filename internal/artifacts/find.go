package artifacts

import (
	"context"
	"errors"
	"flag"
	"maps"
	"os"
	"slices"

	"podlane/internal/pick"
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

var errOutside = errors.New("artifact path is not a subpath of project directory")

// find returns the names of the selected files, directories and links, sorted,
// and says for each path how many there were. What cannot be used, such as a
// path outside the project, is a warning, not an error: so it is with the
// runner. Links are never followed out of the project.
func find(ctx context.Context, root *os.Root, selected selection, log lines) ([]string, error) {
	picker, err := pick.New(root, func(name string, err error) { log.warn("%s: %v", name, err) })
	if err != nil {
		return nil, err
	}
	for _, pattern := range selected.exclude {
		if err := picker.Exclude(pattern); err != nil {
			log.warn("exclude %s: %v", pattern, worded(err))
		}
	}
	for _, pattern := range selected.paths {
		addPath(ctx, picker, pattern, log)
	}
	if selected.untracked {
		addUntracked(ctx, picker, log)
	}
	excluded := picker.Excluded()
	for _, pattern := range slices.Sorted(maps.Keys(excluded)) {
		log.info("%s: excluded %d files", pattern, excluded[pattern])
	}
	return picker.Names(), ctx.Err()
}

func addPath(ctx context.Context, picker *pick.Picker, pattern string, log lines) {
	if pattern == "" {
		log.warn("No matching files. Path is empty.")
		return
	}
	switch count, err := picker.Add(ctx, pattern); {
	case err != nil:
		log.warn("%s: %v", pattern, worded(err))
	case count == 0:
		log.warn("%s: no matching files. Ensure that the artifact path is relative to the working directory (%s)", pattern, picker.Dir())
	default:
		log.info("%s: found %d matching artifact files and directories", pattern, count)
	}
}

// addUntracked adds what git does not track, ignored files among it.
func addUntracked(ctx context.Context, picker *pick.Picker, log lines) {
	switch count, err := picker.AddUntracked(ctx); {
	case err != nil:
		log.warn("untracked: %v", err)
	case count == 0:
		log.warn("untracked: no files")
	default:
		log.info("untracked: found %d files", count)
	}
}

// worded says it as the runner does.
func worded(err error) error {
	if errors.Is(err, pick.ErrOutside) {
		return errOutside
	}
	return err
}
