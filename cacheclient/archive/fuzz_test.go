package archive

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// refused fails unless an error is one that an archive is refused with.
func refused(t *testing.T, err error) {
	t.Helper()
	var short *ShortTailError
	if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrLimit) && !errors.As(err, &short) {
		t.Errorf("refused with %v, expected %v or %v", err, ErrFormat, ErrLimit)
	}
}

// FuzzTail reads anything as the end of an archive.
func FuzzTail(f *testing.F) {
	good := forge(f, [][]byte{make([]byte, 4096)}, directory(0, "d"), file(0, "f", 100, 512), symlink(0, "l", "f"))
	f.Add(good, int64(len(good)))
	f.Add(good[20:], int64(len(good)))
	f.Add(good[len(good)-footerSize:], int64(1<<40))
	f.Fuzz(func(t *testing.T, tail []byte, size int64) {
		if _, err := ReadIndex(tail, size, Limits{Index: 1 << 20}); err != nil {
			refused(t, err)
		}
	})
}

// FuzzIndex takes anything for an index, with all digests right, and restores it:
// whatever comes of it, nothing outside of the root does.
func FuzzIndex(f *testing.F) {
	raw := [][]byte{bytes.Repeat([]byte("0123456789abcdef"), 256), make([]byte, 2048)}
	seed := func(entries ...record) {
		w := indexWriter{}
		w.carried.modes = firstModes
		for i := range entries {
			w.add(&entries[i])
		}
		f.Add(w.finish(nil)[1:])
	}
	link := record{kind: kindLink, up: 0, name: []byte("z"), mode: 0o644, size: 100, back: 1}
	seed(directory(0, "d"), file(0, "f", 100, 512), link, symlink(1, "l", "../outside"), file(0, "m", 4000, 1024))
	seed(record{kind: kindImplied, name: []byte("i")}, directory(0, "empty"), file(1, "f", 0, 512), file(1, "split", 2000, 3584))
	seed(symlink(0, "D", "../outside"), directory(0, "d"), file(0, "precious", 10, 1024))
	f.Fuzz(func(t *testing.T, entries []byte) {
		b := forgeIndex(t, raw, func(frames []frame) []byte {
			w := indexWriter{}
			head := w.finish(frames) // with an entry count of 0, which is one byte
			return append(head[:len(head)-1], entries...)
		})
		x, err := ReadIndex(b, int64(len(b)), Limits{Entries: 200})
		if err != nil {
			refused(t, err)
			return
		}
		for range x.Entries() { // must end, and not panic
		}
		onlyHalf(t, x)
		base := t.TempDir()
		root, outside := filepath.Join(base, "root"), filepath.Join(base, "outside")
		for _, dir := range []string{root, outside} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(outside, "precious"), []byte("untouched"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = Restore(t.Context(), root, x, fetchFrom(b), RestoreOptions{Workers: 2})
		created, lerr := os.ReadDir(root)
		if lerr != nil {
			t.Fatal(lerr)
		}
		if err != nil && len(created) > 0 {
			t.Errorf("restore failed (%v) and left %v", err, created)
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) != 1 {
			t.Errorf("outside there is %v, %v", left, err)
		}
		if b, err := os.ReadFile(filepath.Join(outside, "precious")); err != nil || string(b) != "untouched" {
			t.Errorf("outside there is %q, %v", b, err)
		}
		if err := Remove(root, names(created)); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
}

// onlyHalf takes every other entry of an index that was found to be in order.
func onlyHalf(t *testing.T, x *Index) {
	t.Helper()
	want := map[string]bool{}
	for e := range x.Entries() {
		want[e.Path] = len(want)%2 == 0
	}
	part, lost, err := x.Only(func(path string) bool { return want[path] })
	if errors.Is(err, ErrOther) {
		return
	}
	if err != nil {
		t.Fatalf("half of a good index is none: %v", err)
	}
	for e := range part.Entries() {
		if !want[e.Path] {
			t.Errorf("%q was not asked for", e.Path)
		}
		delete(want, e.Path)
	}
	for path, asked := range want {
		if asked && !slices.Contains(lost, path) {
			t.Errorf("%q is missing", path)
		}
	}
}

func names(entries []os.DirEntry) []string {
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// FuzzFrame takes anything for a frame whose digest is right.
func FuzzFrame(f *testing.F) {
	enc := forge(f, [][]byte{bytes.Repeat([]byte("frame"), 1000)})
	x, err := ReadIndex(enc, int64(len(enc)), Limits{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(enc[:x.frames[0].size], 5000)
	f.Add([]byte{0x5c, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, 1)
	entry := file(0, "f", 1, 512)
	f.Fuzz(func(t *testing.T, data []byte, length int) {
		if len(data) == 0 || length < 1024 || length > 1<<16 {
			return
		}
		w := indexWriter{}
		w.carried.modes = firstModes
		w.add(&entry)
		sealed, _, err := sealIndex(w.finish([]frame{{size: len(data), length: length, digest: sha256.Sum256(data)}}))
		if err != nil {
			t.Fatal(err)
		}
		b := append(bytes.Clone(data), sealed...)
		x, err := ReadIndex(b, int64(len(b)), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		root := t.TempDir()
		if _, err := Restore(t.Context(), root, x, fetchFrom(b), RestoreOptions{Workers: 1}); err != nil {
			refused(t, err)
			if left, _ := os.ReadDir(root); len(left) > 0 {
				t.Errorf("restore failed and left %v", left)
			}
		}
	})
}
