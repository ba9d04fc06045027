package pick

import (
	"slices"
	"testing"
)

func TestCompare(t *testing.T) {
	want := []string{"a", "a/b", "a/b/c", "a/c", "a b", "a-b", "a-b/c", "ab", "b"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, Compare)
	if !slices.Equal(got, want) {
		t.Errorf("sorted %q, want %q", got, want)
	}
	if Compare("a/b", "a/b") != 0 {
		t.Error("a path differs from itself")
	}
}
