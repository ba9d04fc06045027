package artifacts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFind(t *testing.T) {
	outside := plant(t, map[string]string{"secret": "s"})
	dir := plant(t, map[string]string{
		"a.txt":            "",
		"src/x.go":         "",
		"src/deep/y.go":    "",
		"src/deep/z.txt":   "",
		"src/.hidden":      "",
		"out":              linkTo + outside,
		"in":               linkTo + "src",
		"dangling":         linkTo + "nowhere",
		"[odd]/file":       "",
		"empty":            directory,
		"node_modules/.x/": directory,
	})
	for name, tc := range map[string]struct {
		paths, exclude []string
		want           []string
		output         string
	}{
		"file":             {[]string{"a.txt"}, nil, []string{"a.txt"}, "a.txt: found 1 matching artifact files and directories\n"},
		"directory":        {[]string{"src"}, nil, []string{"src", "src/.hidden", "src/deep", "src/deep/y.go", "src/deep/z.txt", "src/x.go"}, "src: found 6 "},
		"slash and dots":   {[]string{"./src/../src/deep//"}, nil, []string{"src/deep", "src/deep/y.go", "src/deep/z.txt"}, "found 3 "},
		"double star":      {[]string{"**/*.go"}, nil, []string{"src/deep/y.go", "src/x.go"}, "**/*.go: found 2 "},
		"counted once":     {[]string{"src/**"}, nil, []string{"src", "src/.hidden", "src/deep", "src/deep/y.go", "src/deep/z.txt", "src/x.go"}, "src/**: found 6 "},
		"alternatives":     {[]string{"src/{x.go,deep/y.go}"}, nil, []string{"src/deep/y.go", "src/x.go"}, "found 2 "},
		"absolute":         {[]string{dir + "/src/deep", dir + "/*.txt"}, nil, []string{"a.txt", "src/deep", "src/deep/y.go", "src/deep/z.txt"}, "/src/deep: found 3 "},
		"exclude":          {[]string{"src"}, []string{"src/deep/**/*", dir + "/src/.h*"}, []string{"src", "src/deep", "src/x.go"}, "src/.h*: excluded 1 files\nsrc/deep/**/*: excluded 2 files\n"},
		"all excluded":     {[]string{"a.txt"}, []string{"*"}, nil, "WARNING: a.txt: no matching files"},
		"nothing":          {[]string{"dist/"}, nil, nil, "WARNING: dist/: no matching files. Ensure that the artifact path is relative to the working directory (" + dir + ")\n"},
		"empty path":       {[]string{""}, nil, nil, "WARNING: No matching files. Path is empty.\n"},
		"parent":           {[]string{"../x"}, nil, nil, "WARNING: ../x: artifact path is not a subpath of project directory\n"},
		"parent by glob":   {[]string{"*/../../*"}, nil, nil, "is not a subpath of project directory"},
		"absolute outside": {[]string{outside + "/secret"}, nil, nil, "/secret: artifact path is not a subpath of project directory\n"},
		"prefix of name":   {[]string{dir + "-other/x"}, nil, nil, "is not a subpath"},
		"link":             {[]string{"out", "dangling"}, nil, []string{"dangling", "out"}, "out: found 1 "},
		"through link out": {[]string{"out/secret"}, nil, nil, "WARNING: out/secret: path escapes from parent\n"},
		"glob link out":    {[]string{"out/*", "*/secret"}, nil, nil, "WARNING: out/*: no matching files"},
		"through link in":  {[]string{"in/x.go"}, nil, []string{"in/x.go"}, "in/x.go: found 1 "},
		"broken glob":      {[]string{"src/[z-"}, nil, nil, "WARNING: src/[z-: syntax error in pattern\n"},
		"everything": {[]string{"."}, []string{"src/**", "node_modules/**"}, []string{
			"[odd]", "[odd]/file", "a.txt", "dangling", "empty", "in", "out",
		}, ".: found 7 "},
	} {
		t.Run(name, func(t *testing.T) {
			root, err := os.OpenRoot(dir)
			must(t, err)
			defer root.Close()
			var output strings.Builder
			got, err := find(t.Context(), root, selection{paths: tc.paths, exclude: tc.exclude}, newLines(&output, ""))
			must(t, err)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
			if !strings.Contains(output.String(), tc.output) {
				t.Errorf("output lacks %q:\n%s", tc.output, output.String())
			}
		})
	}
}

func TestFindUntracked(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip(err)
	}
	dir := plant(t, map[string]string{".gitignore": "ignored\n", "tracked": "", "new \n name": "", "ignored": "", "sub/new": ""})
	for _, args := range [][]string{{"init", "-q"}, {"add", "tracked", ".gitignore"}} {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	g := newGitLab(t)
	g.run(t, dir, "artifacts-uploader", "--untracked", "--exclude", "sub/**").
		want(t, 0, "untracked: found 2 files", "sub/**: excluded 1 files", "201 Created")
	t.Run("no repository", func(t *testing.T) {
		g.run(t, plant(t, map[string]string{".git": "broken"}), "artifacts-uploader", "--untracked").
			want(t, 0, "WARNING: untracked: git ls-files: exit status 128", "ERROR: No files to upload")
	})
}

func TestNoFiles(t *testing.T) {
	g := newGitLab(t)
	g.run(t, t.TempDir(), "artifacts-uploader", "--path", "dist/").
		want(t, 0, "WARNING: dist/: no matching files", "ERROR: No files to upload")
	if _, requests := g.seen(); len(requests) != 0 {
		t.Error("GitLab was bothered with nothing")
	}
}

func TestSpecialFilesAreLeftOut(t *testing.T) {
	dir := plant(t, map[string]string{"f": "x", ".git/config": "x"})
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	g := newGitLab(t)
	g.run(t, dir, "artifacts-uploader", "--path", ".").
		want(t, 0, "WARNING: Part of .git directory is on the list of files to archive", "WARNING: File ignored: pipe: not a regular file", "201 Created")
}

func TestExpand(t *testing.T) {
	config := Config{Env: []string{"A=first", "B=x y", "A=last", "EMPTY="}}
	for in, want := range map[string]string{
		"plain":           "plain",
		"$A/${B}.txt":     "last/x y.txt",
		"${NO:-fallback}": "fallback",
		"${EMPTY:-f}":     "f",
		"${A:-f}":         "last",
		"$NO-$EMPTY":      "-",
		`\$A`:             "$A",
		"cost$":           "cost$",
		"$1 $(id) $*":     "$1 $(id) $*",
	} {
		if got := expand(in, config.getenv); got != want {
			t.Errorf("expand(%q) = %q, want %q", in, got, want)
		}
	}
}
