package archive

import (
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func sum(b []byte) [32]byte { return sha256.Sum256(b) }

// oddTree makes a tree with everything that a cache may meet.
func oddTree(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	rnd := rand.NewChaCha8([32]byte{1})
	noise := func(n int) []byte {
		b := make([]byte, n)
		_, _ = rnd.Read(b)
		return b
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(path string, b []byte, mode os.FileMode) {
		t.Helper()
		full := filepath.Join(root, path)
		must(os.MkdirAll(filepath.Dir(full), 0o755))
		must(os.WriteFile(full, b, 0o600))
		must(os.Chmod(full, mode))
	}
	long := strings.Repeat("long", 60)
	put("a-b", []byte("sorts between a and a/b"), 0o644)
	put("a/b", []byte("x"), 0o600)
	put("a/c/d", []byte("y"), 0o755)
	put("a.txt", nil, 0o644)
	put("bin/tool", []byte("#!/bin/sh\n"), 0o755)
	put("bin/private", []byte("secret"), 0o400)
	put("bin/nobody", []byte("nothing"), 0o000)
	put("bin/everybody", []byte("all"), 0o666)
	put("empty/file", nil, 0o644)
	put("names/\xff\xfe not utf-8 \x01", []byte("bytes"), 0o644)
	put("names/ü日本語", []byte("utf-8"), 0o644)
	put("names/ a\nb\t\"c\"\\", []byte("quotes"), 0o644)
	put("names/"+strings.Repeat("n", 100), []byte("100"), 0o644)
	put("names/"+strings.Repeat("m", 94), []byte("100 with its directory"), 0o644)
	put("names/"+strings.Repeat("o", 95), []byte("101 with its directory"), 0o644)
	put(long+"/"+long+"/"+long+"/f", []byte("deep"), 0o644)
	put("names/Case", []byte("upper"), 0o644)
	put("names/case", []byte("lower"), 0o644)
	put("big/"+"a", noise(segmentLength+1), 0o644)
	put("big/"+"b", noise(2*segmentLength+12345), 0o640)
	put("big/"+"c", noise(segmentLength-512), 0o644)
	put("big/"+"d", noise(segmentLength-511), 0o644)
	put("big/"+"e", []byte("after"), 0o644)
	for _, dir := range []string{"nothing/at/all", "empty2"} {
		must(os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	for i := range 300 {
		put(filepath.Join("many", string(rune('a'+i%26)), "f"+strings.Repeat("i", i%40+1)), noise(i*7), 0o644)
	}
	sparse, err := os.Create(filepath.Join(root, "big/sparse"))
	must(err)
	must(sparse.Truncate(12 << 20))
	_, err = sparse.WriteAt([]byte("in the middle"), 9<<20+5)
	must(err)
	must(sparse.Close())
	for link, target := range map[string]string{
		"link": "a/b", "dangling": "nowhere", "absolute": "/usr/bin/env", "a/up": "../../..", "todir": "a", "names/tolong": long + long + "/" + long,
	} {
		must(os.Symlink(target, filepath.Join(root, link)))
	}
	must(os.Link(filepath.Join(root, "bin/tool"), filepath.Join(root, "a/c/hard")))
	must(os.Link(filepath.Join(root, "bin/tool"), filepath.Join(root, "zhard")))
	must(os.Link(filepath.Join(root, "big/b"), filepath.Join(root, "big/z")))
	put("gomod/x@v1/x.go", []byte("package x"), 0o444)
	put("gomod/x@v1/y/y.go", []byte("package y"), 0o444)
	if os.Geteuid() == 0 {
		must(os.Chown(filepath.Join(root, "a/b"), 1234, 4321))
		must(os.Lchown(filepath.Join(root, "link"), 1234, 4321))
		must(os.Chown(filepath.Join(root, "empty2"), 12, 34))
	}
	for i, p := range listTree(t, root) { // times last, leaves first would do as well: each is set once
		at := time.Date(2001, 2, 3, 4, 5, 6, 123456789+i, time.UTC)
		if i%50 == 0 {
			at = time.Date(1961, 2, 3, 4, 5, 6, i+1, time.UTC)
		}
		ts := []unix.Timespec{unix.NsecToTimespec(at.UnixNano()), unix.NsecToTimespec(at.UnixNano())}
		must(unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(root, p), ts, unix.AT_SYMLINK_NOFOLLOW))
	}
	for _, dir := range []string{"gomod/x@v1/y", "gomod/x@v1", "gomod"} {
		dir = filepath.Join(root, dir)
		st, err := os.Stat(dir)
		must(err)
		must(os.Chmod(dir, 0o555))
		must(os.Chtimes(dir, st.ModTime(), st.ModTime()))
		t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
	}
	if os.Geteuid() != 0 {
		must(os.Chmod(filepath.Join(root, "bin/nobody"), 0o400))
	}
	return root
}

// target is an empty directory whose contents can be removed in the end.
func target(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				err = os.Chmod(p, 0o755)
			}
			return err
		})
	})
	return dir
}

func TestRestoreIsTheSame(t *testing.T) {
	root := oddTree(t)
	for name, o := range map[string]WriteOptions{
		"default":     {},
		"small parts": {PartSize: 100_000, Uploads: 2, Workers: 1},
		"many":        {Workers: 7},
	} {
		t.Run(name, func(t *testing.T) {
			b, s := pack(t, root, o)
			x := open(t, b)
			got := target(t)
			restored, err := Restore(t.Context(), got, x, fetchFrom(b), RestoreOptions{})
			if err != nil {
				t.Fatal(err)
			}
			same(t, root, got)
			restored.FirstFile = 0
			if diff := cmp.Diff(s, restored); diff != "" {
				t.Errorf("summary of Write and of Restore (-want +got):\n%s", diff)
			}
			print, err := Fingerprint(t.Context(), got, listTree(t, got))
			if err != nil || print != s.Fingerprint {
				t.Errorf("fingerprint of the restored tree is %s, %v; of the archive %s", print, err, s.Fingerprint)
			}
		})
	}
}

func TestTarReadsIt(t *testing.T) {
	for _, tool := range []string{"tar", "zstd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	root := oddTree(t)
	b, _ := pack(t, root, WriteOptions{})
	file := filepath.Join(t.TempDir(), "cache.tar.zst")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	got := target(t)
	out, err := exec.Command("tar", "--zstd", "-xp", "-f", file, "-C", got).CombinedOutput()
	if err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	if diff := cmp.Diff(toSeconds(seen(t, root)), toSeconds(seen(t, got))); diff != "" {
		t.Errorf("what tar made differs (-want +got):\n%s", diff)
	}
}

// toSeconds takes the nanoseconds off: a tar has none.
func toSeconds(tree map[string]string) map[string]string {
	for path, line := range tree {
		before, after, _ := strings.Cut(line, ".")
		tree[path] = before + after[9:]
	}
	return tree
}

// Several goroutines give many directories their modes and times, but not where
// one of them could close the way to another.
func TestRestoreManyDirectories(t *testing.T) {
	modes := map[string][]os.FileMode{"open": {0o755, 0o555, 0o700, 0o511}}
	if os.Geteuid() == 0 { // who else could save what is in a directory that is shut
		modes["shut"] = []os.FileMode{0o755, 0o600, 0o000, 0o444}
	}
	for name, modes := range modes {
		t.Run(name, func(t *testing.T) {
			root := target(t)
			var dirs []string
			for i := range 100*runtime.GOMAXPROCS(0)/11 + 1 {
				outer := filepath.Join(root, strconv.Itoa(i))
				for j := range 10 {
					dirs = append(dirs, filepath.Join(outer, strconv.Itoa(j)))
				}
				dirs = append(dirs, outer)
			}
			for i, dir := range dirs {
				err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "file"), []byte(dir), 0o444))
				if err != nil {
					t.Fatal(err)
				}
				if i%11 < 10 {
					continue
				}
				for j, dir := range dirs[i-10 : i+1] { // leaves first
					at := time.Date(2001, 2, 3, 4, 5, 6, i+j, time.UTC)
					if err := errors.Join(os.Chmod(dir, modes[(i+j)%len(modes)]), os.Chtimes(dir, at, at)); err != nil {
						t.Fatal(err)
					}
				}
			}
			b, _ := pack(t, root, WriteOptions{})
			got := target(t)
			if _, err := Restore(t.Context(), got, open(t, b), fetchFrom(b), RestoreOptions{}); err != nil {
				t.Fatal(err)
			}
			same(t, root, got)
		})
	}
}
