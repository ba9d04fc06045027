package match

import (
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// plant makes a project: names that end in a slash are directories, values that
// start with "-> " are links.
func plant(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		full := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(full), 0o755))
		target, link := strings.CutPrefix(content, "-> ")
		switch {
		case strings.HasSuffix(name, "/"):
			must(t, os.MkdirAll(full, 0o755))
		case link:
			must(t, os.Symlink(target, full))
		default:
			must(t, os.WriteFile(full, []byte(content), 0o644))
		}
	}
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "protocol.file.allow=always"}, args...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

func TestFind(t *testing.T) {
	outside := plant(t, map[string]string{"secret": ""})
	dir := plant(t, map[string]string{
		"node_modules/a/index.js": "",
		"node_modules/.bin/a":     "-> ../a/index.js",
		"node_modules/empty/":     "",
		"src/main.go":             "",
		"web/node_modules/b":      "",
		"out":                     "-> " + outside,
	})
	for name, tc := range map[string]struct {
		paths []string
		want  []string
		note  string
	}{
		"directory": {[]string{"node_modules/"}, []string{
			"node_modules", "node_modules/.bin", "node_modules/.bin/a", "node_modules/a", "node_modules/a/index.js", "node_modules/empty",
		}, ""},
		"glob":  {[]string{"**/node_modules/b"}, []string{"web/node_modules/b"}, ""},
		"twice": {[]string{"src", "src/*.go", dir + "/src"}, []string{"src", "src/main.go"}, ""},
		"in order": {[]string{"web", "src", "node_modules/a/*", "**/a"}, []string{
			"node_modules/.bin/a", "node_modules/a", "node_modules/a/index.js", "src", "src/main.go", "web", "web/node_modules", "web/node_modules/b",
		}, ""},
		"nothing":     {[]string{"vendor"}, nil, "vendor: no such files"},
		"empty":       {[]string{""}, nil, "a path is empty"},
		"parent":      {[]string{"../x", "src"}, []string{"src", "src/main.go"}, "../x: not a subpath of the project directory"},
		"elsewhere":   {[]string{outside + "/*"}, nil, "not a subpath"},
		"link out":    {[]string{"out"}, []string{"out"}, ""},
		"through out": {[]string{"out/secret"}, nil, "out/secret: path escapes from parent"},
		"glob out":    {[]string{"out/**", "*/secret"}, nil, "out/**: no such files\n*/secret: no such files"},
		"bad glob":    {[]string{"src/[z-"}, nil, "src/[z-: syntax error in pattern"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Find(t.Context(), dir, Selection{Paths: tc.paths})
			must(t, err)
			if diff := cmp.Diff(tc.want, got.Paths); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
			notes := strings.Join(got.Notes, "\n")
			if !strings.Contains(notes, tc.note) || (tc.note == "" && notes != "") {
				t.Errorf("notes are %q, want %q", notes, tc.note)
			}
		})
	}
}

func TestFindUntracked(t *testing.T) {
	dir := plant(t, map[string]string{".gitignore": "ignored\n", "tracked": "", "ignored": "", "sub/new": "", "odd \n name": ""})
	git(t, dir, "init", "-q")
	git(t, dir, "add", "tracked", ".gitignore")
	got, err := Find(t.Context(), dir, Selection{Untracked: true, Paths: []string{"tracked"}})
	must(t, err)
	if diff := cmp.Diff([]string{"ignored", "odd \n name", "sub/new", "tracked"}, got.Paths); diff != "" {
		t.Error(diff)
	}
	if got, err = Find(t.Context(), plant(t, map[string]string{".git": "broken"}), Selection{Untracked: true}); err != nil || len(got.Notes) != 1 {
		t.Errorf("without a repository: %v, notes %q; want one note", err, got.Notes)
	}
}

func TestFindBoundsNotes(t *testing.T) {
	got, err := Find(t.Context(), t.TempDir(), Selection{Paths: make([]string, 1000)})
	must(t, err)
	if len(got.Notes) != maxNotes+1 || got.Notes[maxNotes] != "and more" {
		t.Errorf("%d notes, the last %q", len(got.Notes), got.Notes[len(got.Notes)-1])
	}
}

func TestAllow(t *testing.T) {
	for _, tc := range []struct {
		selection Selection
		yes, no   []string
	}{
		{Selection{Paths: []string{"node_modules/"}}, []string{"node_modules", "node_modules/a/b"}, []string{"node_modules2", "src", "a/node_modules", ".git/hooks/x"}},
		{Selection{Paths: []string{"web/a"}}, []string{"web/a", "web/a/b", "web/a/b/c"}, []string{"web/a-b", "web/ab", "web", "web/b"}},
		{Selection{Paths: []string{"**/node_modules"}}, []string{"node_modules/x", "a/b/node_modules/c/d"}, []string{"a/b"}},
		{Selection{Paths: []string{"/builds/p/.cache", "*.log"}}, []string{".cache/x", "a.log"}, []string{"a/b.log", "builds/p/.cache"}},
		{Selection{Paths: []string{"[odd]"}}, []string{"[odd]", "[odd]/x"}, []string{"odd", "x"}},
		{Selection{Paths: []string{"."}}, []string{"anything", "a/b"}, nil},
		{Selection{Paths: []string{"../x", "/etc", ""}}, nil, []string{"x", "etc", "etc/passwd"}},
		{Selection{Untracked: true}, []string{"a", "a/.git", ".gitignore"}, []string{".git", ".git/hooks/post-checkout"}},
		{Selection{Untracked: true, Paths: []string{".git/lfs"}}, []string{".git/lfs/x"}, []string{".git/hooks/x"}},
		{Selection{}, nil, []string{"a"}},
	} {
		allow := Allow("/builds/p", tc.selection)
		for _, name := range tc.yes {
			if !allow(name) {
				t.Errorf("%+v refuses %s", tc.selection, name)
			}
		}
		for _, name := range tc.no {
			if allow(name) {
				t.Errorf("%+v allows %s", tc.selection, name)
			}
		}
	}
}

func TestLockfiles(t *testing.T) {
	files := map[string]string{
		"go.sum":                           "root",
		"web/package-lock.json":            "web",
		"web/node_modules/x/package.json":  "",
		"api/dir.lock/":                    "",
		"link.lock":                        "-> go.sum",
		"node_modules/a/package-lock.json": "restored",
	}
	plain := plant(t, files)
	checkout := plant(t, files)
	git(t, checkout, "init", "-q")
	git(t, checkout, "add", "go.sum", "web/package-lock.json", "link.lock")
	for name, tc := range map[string]struct {
		dir   string
		globs []string
		want  []string
		fails bool
	}{
		"plain name":       {checkout, []string{"go.sum"}, []string{"go.sum"}, false},
		"many":             {checkout, []string{"**/package-lock.json", "./go.sum", "**/go.sum"}, []string{"go.sum", "web/package-lock.json"}, false},
		"restored too":     {plain, []string{"**/package-lock.json"}, []string{"node_modules/a/package-lock.json", "web/package-lock.json"}, false},
		"no dirs or links": {plain, []string{"**/*.lock"}, nil, false},
		"links of git":     {checkout, []string{"*.lock"}, nil, false},
		"none":             {checkout, []string{"Gemfile.lock"}, nil, false},
		"outside":          {checkout, []string{"../go.sum"}, nil, true},
		"bad glob":         {checkout, []string{"a[z-"}, nil, true},
		"no globs":         {checkout, nil, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, notes, err := Lockfiles(t.Context(), tc.dir, tc.globs)
			if (err != nil) != tc.fails || len(notes) > 0 {
				t.Fatalf("%v, notes %q", err, notes)
			}
			var names []string
			for _, f := range got {
				names = append(names, f.Path)
			}
			if diff := cmp.Diff(tc.want, names); diff != "" {
				t.Error(diff)
			}
		})
	}
	got, _, err := Lockfiles(t.Context(), checkout, []string{"web/package-lock.json"})
	must(t, err)
	if want := sha256.Sum256([]byte("web")); got[0].Sum != want {
		t.Errorf("digest is %x, want %x", got[0].Sum, want)
	}
	must(t, os.WriteFile(filepath.Join(checkout, ".git", "index"), []byte("broken"), 0o600))
	if _, _, err := Lockfiles(t.Context(), checkout, []string{"go.sum"}); err == nil {
		t.Error("a broken repository is no error")
	}
}
