package archive

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// below allows paths and what lies below them.
func below(paths ...string) func(string) bool {
	return func(path string) bool {
		for _, p := range paths {
			if within(path, p) {
				return true
			}
		}
		return false
	}
}

func TestOnly(t *testing.T) {
	root := oddTree(t)
	b, _ := pack(t, root, WriteOptions{})
	x := open(t, b)
	whole := seen(t, root)
	for name, test := range map[string]struct {
		allow   []string
		lost    []string
		maxRead int64
	}{
		"files and links":     {allow: []string{"a", "todir", "zhard"}, maxRead: 5 << 20},
		"deep":                {allow: []string{"many/b", "nothing/at/all", "gomod/x@v1/y"}, maxRead: 5 << 20},
		"large file":          {allow: []string{"big/sparse"}, maxRead: 5 << 20},
		"links only":          {allow: []string{"link", "absolute"}},
		"empty directory":     {allow: []string{"empty2"}},
		"link leaves":         {allow: []string{"bin"}, lost: []string{"bin/tool"}, maxRead: 5 << 20},
		"files of two frames": {allow: []string{"big/b", "big/z"}, maxRead: 13 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			allow := below(test.allow...)
			part, lost, err := x.Only(allow)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.lost, lost); diff != "" {
				t.Errorf("lost (-want +got):\n%s", diff)
			}
			var mu sync.Mutex
			read := int64(0)
			fetch := func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
				mu.Lock()
				defer mu.Unlock()
				read += n
				return fetchFrom(b)(ctx, offset, n)
			}
			got := target(t)
			summary, err := Restore(t.Context(), got, part, fetch, RestoreOptions{Allow: allow})
			if err != nil {
				t.Fatal(err)
			}
			want := maps.Clone(whole)
			maps.DeleteFunc(want, func(path, _ string) bool { return !allow(path) || slices.Contains(test.lost, path) })
			restored := seen(t, got)
			maps.DeleteFunc(restored, func(path, _ string) bool { return !allow(path) })
			if diff := cmp.Diff(want, restored, cmp.Transformer("links", func(line string) string {
				before, _, _ := strings.Cut(line, " same as ")
				return before
			})); diff != "" {
				t.Errorf("restored (-want +got):\n%s", diff)
			}
			if read > test.maxRead || read != summary.Size {
				t.Errorf("%d bytes were fetched and %d counted, expected at most %d", read, summary.Size, test.maxRead)
			}
			print, err := Fingerprint(t.Context(), got, keys(restored))
			if err != nil || print != summary.Fingerprint || summary.Entries != len(restored) {
				t.Errorf("fingerprint %s of %d entries, %v; expected %s of %d", summary.Fingerprint, summary.Entries, err, print, len(restored))
			}
		})
	}
	t.Run("all", func(t *testing.T) {
		part, lost, err := x.Only(func(string) bool { return true })
		if err != nil || len(lost) > 0 {
			t.Fatal(err, lost)
		}
		got := target(t)
		if _, err := Restore(t.Context(), got, part, fetchFrom(b), RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		same(t, root, got)
	})
	t.Run("nothing", func(t *testing.T) {
		if _, _, err := x.Only(below("elsewhere")); !errors.Is(err, ErrOther) {
			t.Errorf("error is %v, expected %v", err, ErrOther)
		}
	})
}

func keys(tree map[string]string) []string {
	var all []string
	for path := range tree {
		all = append(all, path)
	}
	return all
}
