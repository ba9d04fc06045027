package archive

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fill writes files, each with its path as contents.
func fill(t *testing.T, root string, paths ...string) {
	t.Helper()
	for _, p := range paths {
		full := filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte("was "+p), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReplace(t *testing.T) {
	root := oddTree(t)
	b, _ := pack(t, root, WriteOptions{})
	x := open(t, b)
	got := target(t)
	fill(t, got, "a/b", "zhard", "link", "a/c/hard", "bin/tool", "big/b", "big/sparse", "dangling", "mine/own")
	if err := os.Link(filepath.Join(got, "mine/own"), filepath.Join(got, "a.txt")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("mine/own", filepath.Join(got, "a-b")); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), got, x, fetchFrom(b), RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(got, "mine/own")); err != nil || string(b) != "was mine/own" {
		t.Errorf("mine/own is %q, %v", b, err)
	}
	if err := os.RemoveAll(filepath.Join(got, "mine")); err != nil {
		t.Fatal(err)
	}
	same(t, root, got)

	t.Run("again", func(t *testing.T) {
		if _, err := Restore(t.Context(), got, x, fetchFrom(b), RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		same(t, root, got)
	})
}

func TestFailureLeavesWhatWasThere(t *testing.T) {
	root := oddTree(t)
	b, _ := pack(t, root, WriteOptions{})
	x := open(t, b)
	got := target(t)
	fill(t, got, "a/b", "zhard", "big/b", "many/q/mine", "mine/own")
	before := contents(t, got)
	last := x.frames[len(x.frames)-1].offset
	_, err := Restore(t.Context(), got, x, func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
		if offset+n > last {
			return nil, errors.New("connection lost")
		}
		return fetchFrom(b)(ctx, offset, n)
	}, RestoreOptions{Connections: 1})
	if err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff(before, contents(t, got)); diff != "" {
		t.Errorf("after a failed restore (-want +got):\n%s", diff)
	}
}

func contents(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, p := range listTree(t, root) {
		b, _ := os.ReadFile(filepath.Join(root, p))
		all[p] = string(b)
	}
	return all
}

func TestConflicts(t *testing.T) {
	source := t.TempDir()
	fill(t, source, "d/f", "g")
	b, _ := pack(t, source, WriteOptions{})
	x := open(t, b)
	for name, there := range map[string]string{"file for directory": "d", "directory for file": "g/x"} {
		t.Run(name, func(t *testing.T) {
			got := t.TempDir()
			fill(t, got, there)
			before := contents(t, got)
			if _, err := Restore(t.Context(), got, x, fetchFrom(b), RestoreOptions{}); !errors.Is(err, ErrConflict) {
				t.Errorf("error is %v, expected %v", err, ErrConflict)
			}
			if diff := cmp.Diff(before, contents(t, got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestKilledRestore(t *testing.T) {
	root := oddTree(t)
	b, _ := pack(t, root, WriteOptions{})
	x := open(t, b)
	got := target(t)
	fill(t, got, "a/b", "mine/own", "gomod/own")
	before := contents(t, got)
	missing, err := x.Missing(got)
	if err != nil {
		t.Fatal(err)
	}
	var journal []byte
	if _, err := Restore(t.Context(), got, x, fetchFrom(b), RestoreOptions{Begin: func(created []string) error {
		if !slices.Equal(created, missing) {
			t.Errorf("Begin got %q, Missing says %q", created, missing)
		}
		journal = EncodeJournal(created)
		return nil
	}}); err != nil {
		t.Fatal(err)
	}
	// As if it had been killed before it replaced anything.
	fill(t, got, "a/b", "a/"+x.stageName([]byte("b")))
	created, err := DecodeJournal(journal)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(got, created); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, contents(t, got)); diff != "" {
			t.Errorf("after Remove (-want +got):\n%s", diff)
		}
	}
	if err := os.Chmod(filepath.Join(got, "gomod"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), got, x, fetchFrom(b), RestoreOptions{}); err != nil {
		t.Error(err)
	}
}

func TestJournal(t *testing.T) {
	for _, created := range [][]string{nil, {"a"}, {"a/b", "\xff\n", "end\n"}} {
		b := EncodeJournal(created)
		got, err := DecodeJournal(b)
		if err != nil || !slices.Equal(got, created) {
			t.Errorf("%q came back as %q, %v", created, got, err)
		}
		for n := range b {
			if got, err := DecodeJournal(b[:n]); err == nil {
				t.Errorf("%q: the first %d of %d bytes were taken for %q", created, n, len(b), got)
			}
		}
	}
	for _, b := range []string{"", "podlane-restore-1\n/etc\x00\x00end\n", "podlane-restore-1\n\x00\x00end\n"} {
		if got, err := DecodeJournal([]byte(b)); err == nil {
			t.Errorf("%q was taken for %q", b, got)
		}
	}
}

func TestBeginCanRefuse(t *testing.T) {
	source := t.TempDir()
	fill(t, source, "d/f")
	b, _ := pack(t, source, WriteOptions{})
	got, refused := t.TempDir(), errors.New("no journal")
	_, err := Restore(t.Context(), got, open(t, b), fetchFrom(b), RestoreOptions{Begin: func([]string) error { return refused }})
	if !errors.Is(err, refused) || len(listTree(t, got)) > 0 {
		t.Errorf("error is %v, there is %q", err, listTree(t, got))
	}
}
