package key

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestClean(t *testing.T) {
	for raw, want := range map[string]string{
		"node":                      "node",
		"node-protected":            "node",
		"node-non_protected":        "node",
		"node-3-protected":          "node-3",
		"node-3-non_protected":      "node-3",
		"node-protected-protected":  "node-protected",
		"protected":                 "protected",
		"a/../b-protected":          "b",
		"%2e%2e/x":                  "x",
		`win\key`:                   "win/key",
		"a/ -protected":             "a",
		"a/b/..-protected":          "a",
		"key-protected ":            "key",
		"test job/feature/x":        "test job/feature/x",
		"-protected":                "",
		"..":                        "",
		" ":                         "",
		"":                          "",
		"x/../..-non_protected":     "",
		"unusual-Protected":         "unusual-Protected",
		"node-*-2-non_protected":    "node-*-2",
		"\xff\xfe":                  "\xff\xfe",
		"ключ-protected":            "ключ",
		"0-da39a3ee5e6b4b0d3255bfe": "0-da39a3ee5e6b4b0d3255bfe",
	} {
		got, err := Clean(raw)
		if want == "" {
			if !errors.Is(err, ErrEmpty) {
				t.Errorf("Clean(%q) = %q, %v; want ErrEmpty", raw, got, err)
			}
			continue
		}
		if got != want || err != nil {
			t.Errorf("Clean(%q) = %q, %v; want %q", raw, got, err, want)
		}
	}
}

func TestImmutable(t *testing.T) {
	const sha = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
	for _, tt := range []struct {
		key    string
		commit string
		want   bool
	}{
		{sha, "", true},
		{"0-" + sha, "", true},
		{"node-" + sha + "-3", "", true},
		{"main", "", false},
		{"job/main", "", false},
		{sha[:39], "", false},
		{sha + "0", "", false},
		{"x" + sha, "", false},
		{strings.ToUpper(sha), "", false},
		{"build-" + sha, sha, false},
		{"build-" + sha + "/" + strings.Repeat("0", 40), sha, true},
	} {
		if got := Immutable(tt.key, tt.commit); got != tt.want {
			t.Errorf("Immutable(%q, %q) = %v, want %v", tt.key, tt.commit, got, tt.want)
		}
	}
	digest, err := Digest([]Lockfile{{Path: "go.sum"}})
	if err != nil {
		t.Fatal(err)
	}
	if !Immutable("go-"+digest, "") {
		t.Errorf("a key with the lockfiles' digest %s is not immutable", digest)
	}
}

// The same digits stand in pods' labels and, by hand, in policies.
func TestInstance(t *testing.T) {
	// printf %s gitlab.example.com | sha256sum | cut -c1-8
	if got, want := Instance("gitlab.example.com"), "b84e2e8d"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestScopes(t *testing.T) {
	if diff := cmp.Diff([]Scope{"protected"}, ScopeOf(true).Reads()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Scope{"unprotected", "protected"}, ScopeOf(false).Reads()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Scope{"bogus", "protected"}, Scope("bogus").Reads()); diff != "" {
		t.Error(diff)
	}
}

func TestDigest(t *testing.T) {
	a := Lockfile{Path: "a/package-lock.json", Sum: sha256.Sum256([]byte("one"))}
	b := Lockfile{Path: "b/package-lock.json", Sum: sha256.Sum256([]byte("two"))}
	digest := func(files ...Lockfile) string {
		t.Helper()
		d, err := Digest(files)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	base := digest(a, b)
	if len(base) != 40 {
		t.Errorf("%s has %d digits, want 40", base, len(base))
	}
	if digest(b, a) != base || digest(a, b, a) != base {
		t.Error("order and repetition count")
	}
	moved := Lockfile{Path: "c/package-lock.json", Sum: b.Sum}
	swapped := []Lockfile{{Path: a.Path, Sum: b.Sum}, {Path: b.Path, Sum: a.Sum}}
	for what, other := range map[string]string{
		"fewer": digest(a), "moved": digest(a, moved), "swapped": digest(swapped...),
	} {
		if other == base {
			t.Errorf("%s: the digest is the same", what)
		}
	}
	if _, err := Digest(nil); !errors.Is(err, ErrNoLockfile) {
		t.Errorf("no files: %v, want ErrNoLockfile", err)
	}
	// Computed by another program from the description. Changing it loses everybody's caches.
	if want := "e431aa1877f71d63c15c2842b36c43b7187a373a"; base != want {
		t.Errorf("the digest is %s, was %s", base, want)
	}
}

func TestGlobs(t *testing.T) {
	got := Globs(" go.sum  **/{package-lock,yarn}.json\n\tb ")
	if diff := cmp.Diff([]string{"go.sum", "**/{package-lock,yarn}.json", "b"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestChanges(t *testing.T) {
	file := func(path, contents string) Lockfile {
		return Lockfile{Path: path, Sum: sha256.Sum256([]byte(contents))}
	}
	before := MarksOf([]Lockfile{file("a", "1"), file("b", "1"), file("c", "1")})
	now := MarksOf([]Lockfile{file("a", "1"), file("c", "2"), file("d", "1")})
	if diff := cmp.Diff([]string{"b is gone", "c changed", "d is new"}, Changes(before, now)); diff != "" {
		t.Error(diff)
	}
	if got := Changes(before, before); got != nil {
		t.Errorf("nothing changed, got %q", got)
	}
}
