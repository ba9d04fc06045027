// Package docs checks that what the pages tell people to do can be done.
package docs

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"podlane/executor/settings"
)

const root = "../.."

// pages are all Markdown files, by their place in the checkout.
func pages(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && name != root && (strings.HasPrefix(name, ".") && name != ".." || name == "bin" || name == "testdata") {
			return filepath.SkipDir
		}
		if !entry.IsDir() && strings.HasSuffix(name, ".md") {
			at, err := filepath.Rel(root, file)
			if err != nil {
				return err
			}
			texts[filepath.ToSlash(at)] = read(t, file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(texts) < 15 {
		t.Fatalf("found only %d pages", len(texts))
	}
	return texts
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var spaces = regexp.MustCompile(`\s+`)

// code returns what a page shows as code: spans, and lines of blocks without
// their comments.
func code(page string) []string {
	var found, text []string
	fenced := false
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			fenced = !fenced
		case fenced || strings.HasPrefix(line, "    "):
			found = append(found, strings.TrimSpace(regexp.MustCompile(`(^|\s+)# .*`).ReplaceAllString(line, "")))
		default:
			text = append(text, line)
		}
	}
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(strings.Join(text, "\n"), -1) {
		found = append(found, spaces.ReplaceAllString(m[1], " "))
	}
	return found
}

// anchors are what a page's headings can be reached by.
func anchors(page string) map[string]bool {
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(page, -1) {
		kept := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
				return r
			}
			return -1
		}, strings.ToLower(m[1]))
		found[kept] = true
	}
	return found
}

func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]*)(?:#([^)]*))?\)`)
	all := pages(t)
	for name, page := range all {
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			to := name
			if m[1] != "" {
				to = path.Join(path.Dir(name), m[1])
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", name, m[1])
			}
			if m[2] != "" && !anchors(all[to])[m[2]] {
				t.Errorf("%s: %s has no heading #%s", name, to, m[2])
			}
		}
	}
}

// ownMake are pages about projects with Makefiles of their own.
func ownMake(page string) bool { return strings.HasPrefix(page, "examples/") }

func TestMakeTargetsAreThere(t *testing.T) {
	makefile := read(t, filepath.Join(root, "Makefile"))
	call := regexp.MustCompile(`(?:^|&& |; |\()((?:[A-Z_]+=\S+ )*)make ([a-z0-9-]+)((?: [A-Z]+=\S+)*)`)
	variable := regexp.MustCompile(`([A-Z_]+)=`)
	n := 0
	for name, page := range pages(t) {
		if ownMake(name) {
			continue
		}
		for _, text := range code(page) {
			for _, m := range call.FindAllStringSubmatch(text, -1) {
				n++
				if !strings.Contains(makefile, "\n"+m[2]+":") {
					t.Errorf("%s: there is no target %s", name, m[2])
				}
				for _, v := range variable.FindAllStringSubmatch(m[1]+m[3], -1) {
					if !strings.Contains(makefile, "$("+v[1]+")") && !strings.HasPrefix(v[1], "PODLANE_") && v[1] != "GITLAB_RUNNER" {
						t.Errorf("%s: %s: the Makefile does not use %s", name, text, v[1])
					}
				}
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d calls of make were found: the test proves nothing", n)
	}
}

// Files and packages of the checkout that a page names are there.
func TestFilesAreThere(t *testing.T) {
	tops := `(?:cmd|cacheclient|deploy|docs|examples|executor|internal|podagent|scripts|test|tools|vaultauth)`
	file := regexp.MustCompile(`(?:^|[ "(=])(?:\./)?(` + tops + `/[A-Za-z0-9_./-]*[A-Za-z0-9_])`)
	for name, page := range pages(t) {
		if ownMake(name) {
			continue
		}
		for _, text := range code(page) {
			for _, m := range file.FindAllStringSubmatch(text, -1) {
				if _, err := os.Stat(filepath.Join(root, strings.TrimSuffix(m[1], "/..."))); err != nil {
					t.Errorf("%s: there is no %s", name, m[1])
				}
			}
			if m := regexp.MustCompile(`go test (?:\S+ )*?\./(\S+).* -run (?:'|)(Test\w+)`).FindStringSubmatch(text); m != nil && !hasTest(t, m[1], m[2]) {
				t.Errorf("%s: %s has no %s", name, m[1], m[2])
			}
		}
	}
}

func hasTest(t *testing.T, dir, test string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(f string) bool { return strings.Contains(read(t, f), "\nfunc "+test+"(") })
}

// settingNames are all settings and tables, "job.image", say.
func settingNames(at reflect.Type, prefix string, names map[string]bool) {
	for at.Kind() == reflect.Slice || at.Kind() == reflect.Pointer {
		at = at.Elem()
	}
	if at.Kind() == reflect.Map {
		names[prefix+"*"] = true
	}
	if at.Kind() != reflect.Struct {
		return
	}
	for i := range at.NumField() {
		field := at.Field(i)
		if field.Anonymous {
			settingNames(field.Type, prefix, names)
			continue
		}
		if key, _, _ := strings.Cut(field.Tag.Get("toml"), ","); key != "" {
			names[prefix+key] = true
			settingNames(field.Type, prefix+key+".", names)
		}
	}
}

// Every setting that a page names exists, and is explained in the example.
func TestSettingsAreThere(t *testing.T) {
	names := map[string]bool{}
	settingNames(reflect.TypeFor[settings.Settings](), "", names)
	example := read(t, filepath.Join(root, "podlane.example.toml"))
	setting := regexp.MustCompile(`^\[{0,2}([a-z_]+(?:\.[a-z_]+)+)\]{0,2}(?: = .*)?$`)
	n := 0
	for page, text := range pages(t) {
		for _, c := range code(text) {
			m := setting.FindStringSubmatch(c)
			if m == nil {
				continue
			}
			table, key, _ := strings.Cut(m[1], ".")
			if !names[table] || strings.HasSuffix(key, ".go") || strings.HasSuffix(key, ".md") {
				continue
			}
			n++
			last := m[1][strings.LastIndex(m[1], ".")+1:]
			switch {
			case names[m[1][:len(m[1])-len(last)]+"*"]: // whatever people write there
			case !names[m[1]]:
				t.Errorf("%s: there is no setting %s", page, m[1])
			case !regexp.MustCompile(`(?m)^#? ?(?:` + last + ` = |\[{1,2}` + regexp.QuoteMeta(m[1]) + `\])`).MatchString(example):
				t.Errorf("%s: podlane.example.toml does not explain %s", page, m[1])
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d settings were found: the test proves nothing", n)
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

// Every page of docs can be reached from the README.
func TestReadmeLinksEachPage(t *testing.T) {
	readme := read(t, filepath.Join(root, "README.md"))
	for name := range pages(t) {
		if strings.HasPrefix(name, "docs/") && !strings.Contains(readme, "("+name) {
			t.Errorf("the README has no link to %s", name)
		}
	}
}
