package artifacts

import (
	"archive/zip"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRoundTrip(t *testing.T) {
	from := plant(t, map[string]string{
		"dist/app":            "binary",
		"dist/lib/a.so":       strings.Repeat("library ", 100_000),
		"dist/empty":          "",
		"dist/current":        linkTo + "lib/a.so",
		"dist/nowhere":        linkTo + "/does/not/exist",
		"dist/hollow":         directory,
		"dist/ünï \"x\"\n.md": "odd name",
		"other":               "not asked for",
	})
	must(t, os.Chmod(filepath.Join(from, "dist/app"), 0o751))
	must(t, os.Chmod(filepath.Join(from, "dist/hollow"), 0o555))
	must(t, os.Chtimes(filepath.Join(from, "dist/lib"), testTime, testTime))
	g := newGitLab(t)
	g.run(t, from, "artifacts-uploader",
		"--timeout", "1h0m0s", "--response-header-timeout", "10m0s", "--path", "dist/", "--name", "result",
		"--expire-in", "3 days", "--artifact-format", "zip", "--artifact-type", "archive").
		want(t, 0, "dist/: found 9 matching artifact files and directories\n",
			`Uploading artifacts as "archive" to coordinator... 201 Created  correlation_id=01REQ id=42`)

	uploads, _ := g.seen()
	if len(uploads) != 1 || uploads[0].fileName != "result.zip" ||
		uploads[0].query != "artifact_format=zip&artifact_type=archive&expire_in=3+days" {
		t.Fatalf("uploads: %d, first: %s?%s", len(uploads), uploads[0].fileName, uploads[0].query)
	}

	to := plant(t, map[string]string{"dist/app": "old", "dist/current": "was a file", "kept": "kept"})
	g.run(t, to, "artifacts-downloader").
		want(t, 0, "Downloading artifacts from coordinator... ok  id=42 host=127.0.0.1:")
	want := tree(t, from)
	delete(want, "other")
	want["kept"] = tree(t, to)["kept"]
	if diff := cmp.Diff(want, tree(t, to)); diff != "" {
		t.Errorf("after the round trip (-want +got):\n%s", diff)
	}
	info, err := os.Stat(filepath.Join(to, "dist/lib"))
	must(t, err)
	if !info.ModTime().Equal(testTime) {
		t.Errorf("dist/lib has time %v, want %v", info.ModTime(), testTime)
	}
}

// TestForeignReaders checks our zip with programs that are not Go's.
func TestForeignReaders(t *testing.T) {
	from := plant(t, map[string]string{"a/b": strings.Repeat("x", 100_000), "a/l": linkTo + "b", "a/d": directory})
	must(t, os.Chmod(filepath.Join(from, "a/b"), 0o750))
	g := newGitLab(t)
	g.run(t, from, "artifacts-uploader", "--path", "a").want(t, 0)
	uploads, _ := g.seen()
	file := filepath.Join(t.TempDir(), "a.zip")
	must(t, os.WriteFile(file, uploads[0].content, 0o600))

	t.Run("unzip", func(t *testing.T) {
		to := t.TempDir()
		output(t, "unzip", "-q", file, "-d", to)
		if diff := cmp.Diff(tree(t, from), tree(t, to)); diff != "" {
			t.Errorf("unzip made (-want +got):\n%s", diff)
		}
	})
	t.Run("python", func(t *testing.T) {
		got := output(t, "python3", "-c", "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); print(z.testzip(), z.namelist())", file)
		if want := "None ['a/', 'a/b', 'a/d/', 'a/l']\n"; got != want {
			t.Errorf("python reads %q, want %q", got, want)
		}
	})
}

// TestForeignWriter extracts an archive that zip made.
func TestForeignWriter(t *testing.T) {
	from := plant(t, map[string]string{"a/b": "x", "a/l": linkTo + "b", "a/d": directory})
	file := filepath.Join(t.TempDir(), "a.zip")
	output(t, "sh", "-c", `cd "$1" && zip -qry "$2" .`, "sh", from, file)
	g := newGitLab(t)
	content, err := os.ReadFile(file)
	must(t, err)
	g.archive = content
	to := t.TempDir()
	g.run(t, to, "artifacts-downloader").want(t, 0)
	if diff := cmp.Diff(tree(t, from), tree(t, to)); diff != "" {
		t.Errorf("extracted (-want +got):\n%s", diff)
	}
}

// output runs a program that may not be there.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "TZ=UTC")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func TestUsage(t *testing.T) {
	good := []string{"--url", "http://127.0.0.1:1", "--token", testToken, "--id", "42"}
	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no command":       {nil, 1, `ERROR: command "" is not known`},
		"cache":            {[]string{"cache-archiver", "--file", "x"}, 1, `ERROR: command "cache-archiver" is not known: this program stands in for gitlab-runner`},
		"token in command": {[]string{"--token", testToken}, 1, `command "--token" is not known`},
		"no credentials":   {[]string{"artifacts-uploader", "--path", "x"}, 1, "ERROR: artifacts-uploader: missing --url, --token, --id"},
		"no id":            {[]string{"artifacts-downloader", "--url", "http://x", "--token", testToken}, 1, "ERROR: artifacts-downloader: missing --id"},
		"unknown flag":     {append([]string{"artifacts-uploader", "--new"}, good...), 1, "artifacts-uploader: flag provided but not defined: -new"},
		"argument":         {append([]string{"artifacts-downloader", "x"}, good...), 1, `argument "x" not expected`},
		"url":              {[]string{"artifacts-downloader", "--url", "gitlab/" + testToken, "--token", testToken, "--id", "1"}, 1, "--url is not the address of a GitLab"},
		"format":           {append([]string{"artifacts-uploader", "--artifact-format", "rar"}, good...), 1, `artifact format "rar" is not known: expected zip, gzip or raw`},
		"help":             {[]string{"artifacts-uploader", "--help"}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			runWith(t, Config{Dir: t.TempDir()}, tc.args...).want(t, tc.code, tc.want)
		})
	}
}

func TestArtifactsURL(t *testing.T) {
	for base, want := range map[string]string{
		"https://gitlab.example":            "https://gitlab.example/api/v4/jobs/7/artifacts",
		"https://gitlab.example/":           "https://gitlab.example/api/v4/jobs/7/artifacts",
		"https://gitlab.example/ci":         "https://gitlab.example/api/v4/jobs/7/artifacts",
		"http://u:p@host:81/gitlab/?q=1#fr": "http://host:81/gitlab/api/v4/jobs/7/artifacts",
	} {
		got, err := artifactsURL(base, 7)
		if err != nil || got.String() != want {
			t.Errorf("artifactsURL(%q) = %v, %v; want %s", base, got, err, want)
		}
	}
}

func TestOwnerSurvives(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give files away")
	}
	from := plant(t, map[string]string{"d/f": "x", "d/l": linkTo + "f"})
	for _, name := range []string{"d", "d/f", "d/l"} {
		must(t, os.Lchown(filepath.Join(from, name), 1234, 70000))
	}
	g := newGitLab(t)
	g.run(t, from, "artifacts-uploader", "--path", "d").want(t, 0)
	to := t.TempDir()
	g.run(t, to, "artifacts-downloader").want(t, 0)
	got := output(t, "stat", "-c", "%u:%g", filepath.Join(to, "d"), filepath.Join(to, "d/f"), filepath.Join(to, "d/l"))
	if want := strings.Repeat("1234:70000\n", 3); got != want {
		t.Errorf("owners:\n%swant:\n%s", got, want)
	}
}

// FuzzOwnerIn: extra fields come from others' archives.
func FuzzOwnerIn(f *testing.F) {
	info, err := os.Stat(".")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ownerField(info))
	f.Add([]byte{0x75, 0x78, 11, 0, 1})
	f.Fuzz(func(_ *testing.T, extra []byte) { ownerIn(extra) })
}

// BenchmarkPack measures what an upload costs before the network.
func BenchmarkPack(b *testing.B) {
	dir := b.TempDir()
	var text bytes.Buffer
	for i := 0; text.Len() < 32<<20; i++ {
		text.WriteString(strings.Repeat(time.Unix(int64(i), 0).UTC().String(), i%7+1))
	}
	if err := os.WriteFile(filepath.Join(dir, "big"), text.Bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer root.Close()
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		if err := zipPacker(-1)(b.Context(), new(bytes.Buffer), root, []string{"big"}, newLines(b.Output(), "")); err != nil {
			b.Fatal(err)
		}
	}
}

// zipOf makes an archive of entries that our own packer would not make.
func zipOf(t *testing.T, write func(*zip.Writer)) []byte {
	t.Helper()
	var buffer bytes.Buffer
	archive := zip.NewWriter(&buffer)
	write(archive)
	must(t, archive.Close())
	return buffer.Bytes()
}
