package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"podlane/executor/settings"
)

// What each role can and cannot do is proven: every row of the table names tests,
// and there are such tests. Every JWT role of the settings has a row.
func TestRolesAreTried(t *testing.T) {
	t.Parallel()
	tests := testNames(t)
	_, page, ok := strings.Cut(read(t, filepath.Join(root, "docs/credentials.md")), "## What each role can and cannot do\n")
	page, _, ended := strings.Cut(page, "\n## ")
	if !ok || !ended {
		t.Fatal("docs/credentials.md has no such table")
	}
	var rows int
	for line := range strings.Lines(page) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 || strings.HasPrefix(cells[0], " ---") || strings.TrimSpace(cells[0]) == "who" {
			continue
		}
		rows++
		named := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(cells[3], -1)
		if len(named) == 0 {
			t.Errorf("no test tries what %s can do", cells[0])
		}
		for _, m := range named {
			if !tests[m[1]] {
				t.Errorf("%s: there is no %s", cells[0], m[1])
			}
		}
	}
	if rows < 6 {
		t.Errorf("found %d rows", rows)
	}
	v := settings.Default().Vault
	for _, use := range []settings.VaultRole{v.Kubernetes, v.CacheRead, v.CacheWrite} {
		for _, scope := range []string{"protected", "unprotected"} {
			role, err := settings.Fill(use.AuthRole, map[string]string{"scope": scope})
			if err != nil || !strings.Contains(page, "| JWT role `"+role+"`") {
				t.Errorf("the role %s has no row, %v", role, err)
			}
		}
	}
	if !strings.Contains(page, "| policy `"+v.CacheAdmin.Role+"`") {
		t.Errorf("the policy %s has no row", v.CacheAdmin.Role)
	}
}

// testNames are the tests that there are in the checkout.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	test := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(t \*testing\.T\)`)
	names := map[string]bool{}
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := entry.Name(); entry.IsDir() && strings.HasPrefix(name, ".") && name != ".." {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(file, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(file)
		for _, m := range test.FindAllSubmatch(text, -1) {
			names[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
