package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"podlane/internal/pick"
)

// memory is a Sink that keeps the parts, and their Fetch.
type memory struct {
	mu    sync.Mutex
	parts map[int][]byte
	last  int
}

func (m *memory) Part(_ context.Context, p Part) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.parts == nil {
		m.parts = map[int][]byte{}
	}
	m.parts[p.Number] = bytes.Clone(p.Data)
	if p.Last {
		m.last = p.Number
	}
	return nil
}

func (m *memory) bytes(t *testing.T) []byte {
	t.Helper()
	var b []byte
	for n := 1; n <= m.last; n++ {
		b = append(b, m.parts[n]...)
	}
	if len(m.parts) != m.last || m.last == 0 {
		t.Fatalf("%d parts, the last is number %d", len(m.parts), m.last)
	}
	return b
}

func fetchFrom(b []byte) Fetch {
	return func(_ context.Context, offset, n int64) (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(bytes.NewReader(b), offset, n)), nil
	}
}

// listTree names all that is in a tree.
func listTree(t testing.TB, root string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(root, p); rel != "." {
			paths = append(paths, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// seen is what a tree looks like, each path with all that an archive keeps.
func seen(t testing.TB, root string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	inodes := map[uint64]string{}
	paths := listTree(t, root)
	slices.SortFunc(paths, pick.Compare)
	for _, p := range paths {
		full := filepath.Join(root, p)
		var st unix.Stat_t
		if err := unix.Lstat(full, &st); err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("mode %o owner %d:%d time %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(full)
			if err != nil {
				t.Fatal(err)
			}
			line += fmt.Sprintf(" size %d content %x", st.Size, sum(b))
			if first, ok := inodes[st.Ino]; ok {
				line += " same as " + first
			} else {
				inodes[st.Ino] = p
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(full)
			if err != nil {
				t.Fatal(err)
			}
			line += " to " + target
		}
		tree[p] = line
	}
	return tree
}

// pack writes an archive of all of a tree.
func pack(t testing.TB, root string, o WriteOptions) ([]byte, Summary) {
	t.Helper()
	var m memory
	s, err := Write(t.Context(), root, listTree(t, root), &m, o)
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	for n := 1; n <= m.last; n++ {
		b = append(b, m.parts[n]...)
	}
	if int64(len(b)) != s.Size {
		t.Fatalf("archive has %d bytes, summary says %d", len(b), s.Size)
	}
	return b, s
}

// open reads an archive's index.
func open(t testing.TB, b []byte) *Index {
	t.Helper()
	x, err := ReadIndex(b, int64(len(b)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// same fails unless two trees look the same.
func same(t testing.TB, want, got string) {
	t.Helper()
	if diff := cmp.Diff(seen(t, want), seen(t, got)); diff != "" {
		t.Errorf("restored tree differs (-want +got):\n%s", diff)
	}
}
