package docs

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The tree in ARCHITECTURE.md has the checkout's folders, and no others. A
// folder's line may name those below it.
func TestArchitectureShowsTheFolders(t *testing.T) {
	lines := regexp.MustCompile(`(?m)^ {4}( *)([a-z/-]+)/ +(.+(?:\n {26}.+)*)$`).FindAllStringSubmatch(read(t, filepath.Join(root, "ARCHITECTURE.md")), -1)
	if len(lines) < 10 {
		t.Fatalf("the tree has only %d lines", len(lines))
	}
	shown, parent := map[string]string{}, ""
	for _, m := range lines {
		at := m[2]
		if m[1] == "" {
			parent = at
		} else {
			at = path.Join(parent, at)
		}
		shown[at] = m[3]
		if info, err := os.Stat(filepath.Join(root, at)); err != nil || !info.IsDir() {
			t.Errorf("the tree has %s, which is no folder", at)
		}
	}
	for _, dir := range folders(t, "") {
		said, there := shown[dir]
		below := folders(t, dir)
		for _, child := range below {
			_, own := shown[path.Join(dir, child)]
			if !own && !regexp.MustCompile(`\b`+regexp.QuoteMeta(child)+`\b`).MatchString(said) {
				t.Errorf("the tree does not show %s/%s", dir, child)
			}
			there = there || own
		}
		if !there {
			t.Errorf("the tree does not show %s", dir)
		}
	}
}

// folders are those in a folder that hold something of the project's.
func folders(t *testing.T, at string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, at))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		if name := e.Name(); e.IsDir() && !strings.HasPrefix(name, ".") && name != "bin" && name != "testdata" {
			found = append(found, name)
		}
	}
	return found
}
