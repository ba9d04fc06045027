package artifacts

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testTime has whole seconds: zip's extended timestamps have no more.
var testTime = time.Date(2024, 2, 29, 12, 34, 56, 0, time.UTC)

// What stands for a file in plant is its content, or one of these.
const (
	linkTo    = "-> " // a link
	directory = "dir" // a directory
)

// plant makes files below a new directory. Parents are made by themselves.
func plant(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, what := range files {
		full := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(full), 0o755))
		if what == directory {
			must(t, os.MkdirAll(full, 0o755))
			continue
		}
		if target, ok := strings.CutPrefix(what, linkTo); ok {
			must(t, os.Symlink(target, full))
			continue
		}
		must(t, os.WriteFile(full, []byte(what), 0o644))
		must(t, os.Chtimes(full, testTime, testTime))
	}
	return dir
}

// entry is what a test compares of a file.
type entry struct {
	Mode    fs.FileMode
	Content string
	Time    time.Time
}

// tree reads a directory back. Times of links and directories, which tests do
// not set, are left out.
func tree(t *testing.T, dir string) map[string]entry {
	t.Helper()
	got := map[string]entry{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{Mode: info.Mode()}
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			e.Content, e.Time = string(content), info.ModTime().UTC()
		case info.Mode()&fs.ModeSymlink != 0:
			if e.Content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		rel, err := filepath.Rel(dir, path)
		got[rel] = e
		return err
	}))
	return got
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
