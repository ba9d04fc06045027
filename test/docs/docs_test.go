// Package docs checks that what the pages tell people to do can be done.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

func pages(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) < 5 {
		t.Fatalf("found only %v", files)
	}
	return files
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", page, m[1])
			}
		}
	}
}

func TestMakeTargetsAreThere(t *testing.T) {
	makefile := read(t, filepath.Join(root, "Makefile"))
	target := regexp.MustCompile("(?m)(?:^ {4}|`|&& |[A-Z_]+=\\S+ )make ([a-z0-9-]+)")
	for _, page := range pages(t) {
		if strings.Contains(page, "examples") {
			continue // its own Makefiles
		}
		for _, m := range target.FindAllStringSubmatch(read(t, page), -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s: there is no target %s", page, m[1])
			}
		}
	}
}

// Every setting that a page names exists.
func TestSettingsAreThere(t *testing.T) {
	example := read(t, filepath.Join(root, "podlane.example.toml"))
	setting := regexp.MustCompile("`(?:kubernetes|job|pod|vault)\\.([a-z_]+)`")
	for _, page := range pages(t) {
		for _, m := range setting.FindAllStringSubmatch(read(t, page), -1) {
			if !strings.Contains(example, "\n"+m[1]+" = ") && !strings.Contains(example, "\n["+strings.Trim(m[0], "`")+"]") {
				t.Errorf("%s: there is no setting %s", page, m[0])
			}
		}
	}
}

// The way in is exactly two commands.
func TestReadmeNamesTheWayIn(t *testing.T) {
	readme := read(t, filepath.Join(root, "README.md"))
	for _, command := range []string{"\n    make demo\n", "\n    make test\n"} {
		if !strings.Contains(readme, command) {
			t.Errorf("the README does not show %q", strings.TrimSpace(command))
		}
	}
}
