package archive

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"podlane/internal/pick"
)

func TestWriteLeavesOut(t *testing.T) {
	root := t.TempDir()
	fill(t, root, "program", "dir/file", "dir/other")
	for path, mode := range map[string]uint32{"program": 0o6755, "dir": 0o3775} {
		if err := unix.Chmod(filepath.Join(root, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(root, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	var m memory
	s, err := Write(t.Context(), root, []string{"pipe", "dir/gone", "gone/file", "./program", "dir/", "dir", "dir/file", "."}, &m, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Skipped, []string{"pipe"}) {
		t.Errorf("skipped %q", s.Skipped)
	}
	var got []string
	for e := range open(t, m.bytes(t)).Entries() {
		got = append(got, e.Mode.String()+" "+e.Path)
	}
	want := []string{"drwxrwxr-x dir", "-rw------- dir/file", "-rwxr-xr-x program"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestWriteRefuses(t *testing.T) {
	root := t.TempDir()
	fill(t, root, "real/file")
	if err := os.Symlink("real", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		paths   []string
		want    error
		message string
	}{
		"nothing listed":   {want: ErrEmpty},
		"nothing there":    {paths: []string{"gone", "gone/too"}, want: ErrEmpty},
		"only the root":    {paths: []string{"."}, want: ErrEmpty},
		"absolute":         {paths: []string{"/etc/passwd"}, message: "/etc/passwd cannot be cached"},
		"parent":           {paths: []string{"../x"}, message: "../x cannot be cached"},
		"parent, hidden":   {paths: []string{"real/../../x"}, message: "cannot be cached"},
		"empty":            {paths: []string{""}, message: "cannot be cached"},
		"below a link":     {paths: []string{"link/file"}, want: unix.ENOTDIR, message: "link"},
		"too many entries": {paths: []string{"real", "real/file", "link"}, want: ErrLimit},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Write(t.Context(), root, test.paths, &memory{}, WriteOptions{Limits: Limits{Entries: 2}})
			if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.message) {
				t.Errorf("error is %v, expected %v with %q", err, test.want, test.message)
			}
		})
	}
}

type failingSink struct{ at int }

func (f failingSink) Part(_ context.Context, p Part) error {
	if p.Number >= f.at {
		return errors.New("no space in the bucket")
	}
	return nil
}

func TestWriteEndsWhenTheSinkFails(t *testing.T) {
	root := oddTree(t)
	for _, at := range []int{1, 2, 9} {
		_, err := Write(t.Context(), root, listTree(t, root), failingSink{at}, WriteOptions{PartSize: 1 << 20, Workers: 3})
		if err == nil || !strings.Contains(err.Error(), "no space in the bucket") {
			t.Errorf("part %d failed, error is %v", at, err)
		}
	}
}

func TestCancel(t *testing.T) {
	root := oddTree(t)
	b, _ := pack(t, root, WriteOptions{})
	stop := errors.New("the job was cancelled")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := Write(ctx, root, listTree(t, root), &memory{}, WriteOptions{}); !errors.Is(err, stop) {
		t.Errorf("Write ended with %v", err)
	}
	got := target(t)
	if _, err := Restore(ctx, got, open(t, b), fetchFrom(b), RestoreOptions{}); !errors.Is(err, stop) {
		t.Errorf("Restore ended with %v", err)
	}
	if left := listTree(t, got); len(left) > 0 {
		t.Errorf("Restore left %q", left)
	}
}

// Any change that matters changes the fingerprint; what does not does not.
func TestFingerprint(t *testing.T) {
	root := t.TempDir()
	fill(t, root, "a/f", "a/g", "b/f")
	if err := os.Symlink("a", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	all := listTree(t, root)
	of := func() string {
		t.Helper()
		s, err := Fingerprint(t.Context(), root, all)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	in := func(p string) string { return filepath.Join(root, p) }
	keep := func(p string, change func() error) func() error {
		return func() error {
			st, err := os.Lstat(in(p))
			if err != nil {
				return err
			}
			return errors.Join(change(), os.Chtimes(in(p), st.ModTime(), st.ModTime()))
		}
	}
	for _, step := range []struct {
		name   string
		change bool
		do     func() error
	}{
		{"nothing", false, func() error { return nil }},
		{"order", false, func() error { slices.Reverse(all); return nil }},
		{"a file that came and went", false, func() error { return errors.Join(os.WriteFile(in("a/tmp"), nil, 0o600), os.Remove(in("a/tmp"))) }},
		{"access time", false, func() error {
			st, err := os.Stat(in("a/f"))
			return errors.Join(err, os.Chtimes(in("a/f"), time.Unix(5, 5), st.ModTime()))
		}},
		{"a nanosecond", true, func() error {
			st, err := os.Stat(in("a/f"))
			return errors.Join(err, os.Chtimes(in("a/f"), st.ModTime(), st.ModTime().Add(1)))
		}},
		{"size alone", true, keep("a/g", func() error { return os.WriteFile(in("a/g"), []byte("longer than it was"), 0o600) })},
		{"mode", true, func() error { return os.Chmod(in("b/f"), 0o755) }},
		{"directory's mode", true, func() error { return os.Chmod(in("b"), 0o700) }},
		{"link's target", true, func() error { return errors.Join(os.Remove(in("link")), os.Symlink("b", in("link"))) }},
		{"removed", true, func() error { return os.Remove(in("a/g")) }},
	} {
		before := of()
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if changed := of() != before; changed != step.change {
			t.Errorf("%s: changed %v, expected %v", step.name, changed, step.change)
		}
	}
}

// A Go module cache is on every machine that runs this test.
func TestRealTree(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/klauspost/compress").Output()
	root := strings.TrimSpace(string(out))
	if err != nil || root == "" {
		t.Fatalf("go list: %v", err)
	}
	b, _ := pack(t, root, WriteOptions{})
	got := target(t)
	if _, err := Restore(t.Context(), got, open(t, b), fetchFrom(b), RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	same(t, root, got)
}

func TestComparePaths(t *testing.T) {
	want := []string{"a", "a/b", "a/b/c", "a/b.txt", "a-b", "a.b/c", "b"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, pick.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("sorted to %q", got)
	}
}
