package helperimage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/ulikunitz/xz"
)

// What is pinned is whole: the same packages for all architectures, the seeds
// among them, none of those that we do without.
func TestPinnedPackages(t *testing.T) {
	lock, err := Pinned()
	if err != nil {
		t.Fatal(err)
	}
	names := func(arch string) (out []string) {
		for _, p := range lock.Of(arch) {
			out = append(out, p.Name)
		}
		return out
	}
	want := names(Arches[0])
	for _, arch := range Arches {
		got := names(arch)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s has other packages:\n%s", arch, diff)
		}
		for _, seed := range seeds {
			if !slices.Contains(got, seed) {
				t.Errorf("%s lacks %s", arch, seed)
			}
		}
		for _, name := range without {
			if slices.Contains(got, name) {
				t.Errorf("%s has %s", arch, name)
			}
		}
	}
	again, err := ParseLock(lock.String())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(lock, again); diff != "" || lock.String() != lockText {
		t.Errorf("the lock file is not as it would be written: %s", diff)
	}
}

func TestLockFilesMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"debian amd64 git": `line 1: found "debian amd64 git", expected archive`,
		"\ndate soon":      "line 2: parsing time",
		"debian amd64 git 1 " + strings.Repeat("0", 64) + " x p": "line 1: strconv",
	} {
		if _, err := ParseLock(text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestChooseTakesWhatSeedsNeed(t *testing.T) {
	known := map[string]offer{}
	for name, depends := range map[string]string{
		"bash": "base-files (>= 2.1.12), libtinfo6", "busybox-static": "", "ca-certificates": "debconf (>= 0.5) | debconf-2.0",
		"git": "libc6 (>= 2.38), perl:any, libcurl | libcurl-other", "git-lfs": "git, libc6", "libc6": "", "libtinfo6": "", "libcurl": "git", "other": "",
	} {
		o, err := parseOffer("Package: " + name + "\nVersion: 1\nSize: 7\nSHA256: 00\nFilename: pool/" + name + "\nDepends: " + depends)
		if err != nil {
			t.Fatal(err)
		}
		known[name] = o
	}
	chosen, err := choose(known)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range chosen {
		got = append(got, p.Name)
	}
	if diff := cmp.Diff([]string{"bash", "busybox-static", "ca-certificates", "git", "git-lfs", "libc6", "libcurl", "libtinfo6"}, got); diff != "" {
		t.Error(diff)
	}
	delete(known, "libc6")
	if _, err := choose(known); err == nil || err.Error() != "there is no package libc6" {
		t.Errorf("got %v", err)
	}
}

// file is one in a package of the tests.
type file struct {
	name, content, link string
	kind                byte
	mode                int64
}

// debOf makes a Debian package.
func debOf(t *testing.T, name string, files ...file) []byte {
	t.Helper()
	pack := func(files []file) []byte {
		var out bytes.Buffer
		compress, err := xz.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		w := tar.NewWriter(compress)
		for _, f := range files {
			h := &tar.Header{Name: f.name, Typeflag: f.kind, Linkname: f.link, Mode: f.mode, Size: int64(len(f.content)), Uid: 3, ModTime: time.Now()}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(f.content)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := compress.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	var deb bytes.Buffer
	deb.WriteString("!<arch>\n")
	for _, m := range []struct {
		name    string
		content []byte
	}{
		{"debian-binary", []byte("2.0\n")},
		{"control.tar.xz", pack([]file{{name: "./control", kind: tar.TypeReg, content: "Package: " + name + "\n", mode: 0o644}})},
		{"data.tar.xz", pack(files)},
	} {
		fmt.Fprintf(&deb, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", m.name, 0, 0, 0, 0o644, len(m.content))
		deb.Write(m.content)
		if len(m.content)%2 == 1 {
			deb.WriteByte('\n')
		}
	}
	return deb.Bytes()
}

// mirror serves packages and makes the lock file for them.
func mirror(t *testing.T, debs map[string][]byte) (Source, Lock) {
	t.Helper()
	lock := Lock{Date: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)}
	for _, arch := range Arches {
		for name, deb := range debs {
			lock.Packages = append(lock.Packages, Package{
				Archive: "debian", Arch: arch, Name: name, Version: "1:2+b3", Size: int64(len(deb)), Path: "pool/" + name + ".deb",
				SHA256: fmt.Sprintf("%x", sha256.Sum256(deb)),
			})
		}
	}
	slices.SortFunc(lock.Packages, func(a, b Package) int { return strings.Compare(a.Arch+a.Name, b.Arch+b.Name) })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/debian/pool/"), ".deb")
		if deb, there := debs[name]; there {
			_, _ = w.Write(deb)
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(server.Close)
	return Source{Mirror: server.URL, Cache: t.TempDir()}, lock
}

func packages(t *testing.T) map[string][]byte {
	program := strings.Repeat("program ", 10000)
	return map[string][]byte{
		"busybox-static": debOf(t, "busybox-static",
			file{name: "./", kind: tar.TypeDir, mode: 0o755}, file{name: "./bin/busybox", kind: tar.TypeReg, content: "box", mode: 0o4755}),
		"ca-certificates": debOf(t, "ca-certificates",
			file{name: "./usr/share/ca-certificates/mozilla/b.crt", kind: tar.TypeReg, content: "B\n", mode: 0o644},
			file{name: "./usr/share/ca-certificates/mozilla/a.crt", kind: tar.TypeReg, content: "A\n", mode: 0o644},
			file{name: "./usr/sbin/update-ca-certificates", kind: tar.TypeReg, content: "#!/bin/sh", mode: 0o755}),
		"git": debOf(t, "git",
			file{name: "./usr/bin/git", kind: tar.TypeReg, content: program, mode: 0o755},
			file{name: "./usr/lib/git-core/git", kind: tar.TypeReg, content: program, mode: 0o755},
			file{name: "./usr/lib/git-core/git-add", kind: tar.TypeLink, link: "./usr/bin/git"},
			file{name: "./usr/lib/git-core/git-svn", kind: tar.TypeReg, content: "perl", mode: 0o755},
			file{name: "./usr/share/doc/git/copyright", kind: tar.TypeReg, content: "licence", mode: 0o644},
			file{name: "./usr/share/doc/git/README", kind: tar.TypeReg, content: "text", mode: 0o644},
			file{name: "./usr/share/locale/de/git.mo", kind: tar.TypeReg, content: "text", mode: 0o644},
			file{name: "./var/lib/git/", kind: tar.TypeDir, mode: 0o755}),
	}
}

func TestTreeHasWhatItNeeds(t *testing.T) {
	source, lock := mirror(t, packages(t))
	entries, err := source.Tree(t.Context(), lock, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range entries {
		kind := e.Mode.String()
		if _, twice := got[e.Name]; twice {
			t.Errorf("%s is there twice", e.Name)
		}
		switch {
		case e.Link != "":
			kind = "-> " + e.Link
		case len(e.Content) < 20:
			kind += " " + string(e.Content)
		}
		if e.UID != 0 || e.Time != 0 || e.Mode&fs.ModeSetuid != 0 {
			t.Errorf("%s has an owner, a time or is setuid: %+v", e.Name, e)
		}
		got[e.Name] = kind
	}
	want := map[string]string{
		"bin": "-> usr/bin", "lib64": "-> usr/lib64", "tmp": "dtrwxrwxrwx ", "home/podlane": "dtrwxrwxrwx ", "usr/lib/git-core": "drwxr-xr-x ",
		"usr/bin/busybox": "-rwxr-xr-x box", "usr/bin/sh": "-> busybox", "usr/bin/[": "-> busybox",
		"usr/bin/git": "-rwxr-xr-x", "usr/lib/git-core/git": "-> /usr/bin/git", "usr/lib/git-core/git-add": "-> ../../bin/git",
		"usr/share/doc/git/copyright": "-rw-r--r-- licence", "etc/ssl/certs/ca-certificates.crt": "-rw-r--r-- A\nB\n",
		"var/lib/dpkg/status.d/git": "-rw-r--r-- Package: git\n",
		"usr/lib/git-core/git-svn":  "", "usr/share/doc/git/README": "", "usr/share/locale": "", "usr/share/locale/de/git.mo": "", "var/lib/git": "",
		"usr/sbin/update-ca-certificates": "", "usr/share/ca-certificates/mozilla/a.crt": "",
	}
	for name, kind := range want {
		if got[name] != kind {
			t.Errorf("%s is %q, want %q", name, got[name], kind)
		}
	}
}

// Whatever the mirror sends, only what was pinned gets into the image.
func TestFetchTrustsTheLockFileOnly(t *testing.T) {
	debs := packages(t)
	source, lock := mirror(t, debs)
	p := lock.Of("amd64")[2]
	content, err := source.fetch(t.Context(), lock, p)
	if err != nil {
		t.Fatal(err)
	}
	cached := filepath.Join(source.Cache, p.SHA256+".deb")
	if err := os.WriteFile(cached, content[:100], 0o644); err != nil {
		t.Fatal(err)
	}
	// A damaged file in the cache is fetched again.
	if again, err := source.fetch(t.Context(), lock, p); err != nil || !bytes.Equal(again, content) {
		t.Errorf("got %d bytes, %v", len(again), err)
	}
	if err := p.check(append(content, 'x')); err == nil || !strings.Contains(err.Error(), "expected") {
		t.Errorf("other content passes: %v", err)
	}
}

// The same packages and the same podlane-helper give the same image, to the
// byte, wherever and whenever it is made.
func TestImageIsReproducible(t *testing.T) {
	source, lock := mirror(t, packages(t))
	// Any small program of Go's will do.
	program := filepath.Join(t.TempDir(), "program")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "podlane/test/images/noshell").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	helper := func(string) string { return program }
	first := filepath.Join(t.TempDir(), "image")
	digest, err := Write(t.Context(), first, "v1", source, lock, helper)
	if err != nil {
		t.Fatal(err)
	}
	source.Cache = t.TempDir()
	second := filepath.Join(t.TempDir(), "image")
	if again, err := Write(t.Context(), second, "v1", source, lock, helper); err != nil || again != digest {
		t.Errorf("made twice: %s and %s, %v", digest, again, err)
	}
	for _, arch := range Arches {
		name := arch + ".spdx.json"
		if a, b := read(t, filepath.Join(first, name)), read(t, filepath.Join(second, name)); a != b {
			t.Errorf("%s differs:\n%s", name, cmp.Diff(a, b))
		}
		checkBill(t, read(t, filepath.Join(first, name)), arch)
	}
	checkLayout(t, first)
}

// checkLayout reads the image as a registry's client would.
func checkLayout(t *testing.T, dir string) {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	outer, err := index.IndexManifest()
	if err != nil || len(outer.Manifests) != 1 {
		t.Fatalf("the layout has %d entries, %v", len(outer.Manifests), err)
	}
	inner, err := index.ImageIndex(outer.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := inner.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var arches []string
	for _, m := range manifest.Manifests {
		arches = append(arches, m.Platform.Architecture)
		img, err := inner.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Architecture != m.Platform.Architecture || config.Config.User != "" || !slices.Contains(config.Config.Env, "HOME="+Home) || len(config.RootFS.DiffIDs) != 2 {
			t.Errorf("the image for %s has the configuration %+v", m.Platform.Architecture, config)
		}
	}
	if diff := cmp.Diff(Arches, arches); diff != "" {
		t.Error(diff)
	}
}

func checkBill(t *testing.T, text, arch string) {
	t.Helper()
	var bill document
	if err := json.Unmarshal([]byte(text), &bill); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{bill.ID: true}
	var names []string
	for _, p := range bill.Packages {
		if ids[p.ID] {
			t.Errorf("two parts are called %s", p.ID)
		}
		ids[p.ID] = true
		names = append(names, p.Name)
		if p.Name == "git" && p.Refs[0].Locator != "pkg:deb/debian/git@1%3A2%2Bb3?arch="+arch+"&distro=debian-13" {
			t.Errorf("git is %s", p.Refs[0].Locator)
		}
	}
	for _, r := range bill.Relationships {
		if !ids[r.From] || !ids[r.To] {
			t.Errorf("a relationship of parts that are not there: %v", r)
		}
	}
	for _, want := range []string{"podlane-helper-image", "git", "busybox-static", "stdlib"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s does not stand among %v", want, names)
		}
	}
}

func TestDamagedPackages(t *testing.T) {
	whole := debOf(t, "x", file{name: "./usr/bin/x", kind: tar.TypeReg, content: "x", mode: 0o755})
	if _, err := unpack(whole, "x"); err != nil {
		t.Fatal(err)
	}
	for name, deb := range map[string][]byte{
		"no archive": []byte("<html>"), "cut": whole[:len(whole)-30], "empty": whole[:8], "device": debOf(t, "x", file{name: "./dev/x", kind: tar.TypeChar}),
	} {
		if entries, err := unpack(deb, "x"); err == nil || !strings.HasPrefix(err.Error(), "package x: ") {
			t.Errorf("%s: got %d files, %v", name, len(entries), err)
		}
	}
}

// A package that we do without must not be one that a program needs.
func TestProgramsHaveTheirLibraries(t *testing.T) {
	const program = "/bin/bash"
	content, err := os.ReadFile(program)
	if err != nil {
		t.Skip("this machine has no ", program)
	}
	debs := packages(t)
	debs["bash"] = debOf(t, "bash", file{name: "./usr/bin/bash", kind: tar.TypeReg, content: string(content), mode: 0o755})
	source, lock := mirror(t, debs)
	if _, err := source.Tree(t.Context(), lock, "amd64"); err == nil || !strings.Contains(err.Error(), "usr/bin/bash needs libc.so.6, which is not in the image") {
		t.Errorf("got %v", err)
	}
	debs["libc6"] = debOf(t, "libc6", file{name: "./lib/libc.so.6", kind: tar.TypeReg}, file{name: "./lib/libtinfo.so.6", kind: tar.TypeSymlink, link: "libtinfo.so.6.4"})
	source, lock = mirror(t, debs)
	if _, err := source.Tree(t.Context(), lock, "amd64"); err != nil {
		t.Error(err)
	}
}

// A path in a package cannot leave the image.
func TestPathsStayInTheImage(t *testing.T) {
	for name, want := range map[string]string{"./lib/x": "usr/lib/x", "../../etc/passwd": "etc/passwd", "./": ".", "/sbin/x": "usr/sbin/x", "./library": "library"} {
		if got := merged(name); got != want {
			t.Errorf("%s becomes %s, want %s", name, got, want)
		}
	}
	for name, want := range map[string]bool{
		"usr/lib/x86_64-linux-gnu/gconv/UTF-16.so": true, "usr/lib/x86_64-linux-gnu/libc.so.6": false, "usr/share/man/man1/git.1.gz": true,
		statusDir + "git": false, "var/lib/dpkg/info/x": true, "usr/lib/git-core/git-submodule": false, "usr/bin/git": false,
	} {
		if isUnused(name) != want {
			t.Errorf("%s: unused is not %v", name, want)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
