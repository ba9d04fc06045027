package key

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func space(t testing.TB, prefix string) Space {
	t.Helper()
	s, err := NewSpace(prefix, Instance("gitlab.example.com"), 42)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var somePaths = PathsOf([]string{"deps"}, true)

func TestPathsOf(t *testing.T) {
	same := PathsOf([]string{"a", "b"}, false)
	if got := PathsOf([]string{"b", "a", "b"}, false); got != same {
		t.Errorf("the order counts: %s and %s", got, same)
	}
	for _, other := range []Paths{PathsOf([]string{"a", "b"}, true), PathsOf([]string{"ab"}, false), PathsOf([]string{"a"}, false), PathsOf(nil, true)} {
		if other == same {
			t.Errorf("different paths are both %s", same)
		}
	}
}

func TestObject(t *testing.T) {
	// printf %s 'frontend/go-1.26 x' | sha256sum; printf 'a\0b/*\0' | sha256sum | cut -c1-16
	want := "podlane/ci/b84e2e8d/42/protected/frontend!2Fgo-1.26!20x.e5847b4f3d8fef0a78ca07fca8af7f4386cdc35c2066395b0b072eb4772183d7.17b502b59e5b1e8a"
	if got := space(t, "/podlane/ci/").Object(Protected, "frontend/go-1.26 x", PathsOf([]string{"b/*", "a", "a"}, false)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := space(t, "").Dir(Unprotected); got != "b84e2e8d/42/unprotected/" {
		t.Errorf("without a prefix: %s", got)
	}
}

func TestNewSpaceRefuses(t *testing.T) {
	for _, tt := range []struct {
		prefix, instance string
		project          int64
	}{
		{"a/../b", "0a", 1},
		{"a//b", "0a", 1},
		{"..", "0a", 1},
		{"a/*", "0a", 1},
		{strings.Repeat("a", 600), "0a", 1},
		{"a", "", 1},
		{"a", "../x", 1},
		{"a", "0a", 0},
		{"a", "0a", -1},
	} {
		if s, err := NewSpace(tt.prefix, tt.instance, tt.project); err == nil {
			t.Errorf("NewSpace(%.20q, %q, %d) = %v, want an error", tt.prefix, tt.instance, tt.project, s)
		}
	}
}

func TestParseObjectRefuses(t *testing.T) {
	good := space(t, "p").Object(Protected, "key", somePaths)
	for _, object := range []string{
		"", "p", "p/", "other" + good, strings.TrimPrefix(good, "p/"), good + "x", good + "/", good[:len(good)-1], good[:len(good)-17], good[:len(good)-17] + "-" + good[len(good)-16:],
		strings.Replace(good, "protected", "trusted", 1), strings.Replace(good, "/42/", "/x/", 1),
		strings.Replace(good, "key.", "yek.", 1), strings.Replace(good, "key.", "!.", 1), strings.Replace(good, "key.", "!zz.", 1),
		strings.Replace(good, "key.", ".", 1), good + "/more",
	} {
		if e, err := ParseObject("p", object); err == nil {
			t.Errorf("ParseObject(%q) = %+v, want an error", object, e)
		}
	}
}

func TestFallback(t *testing.T) {
	for raw, want := range map[string]Want{
		"node-*":                       {Key: "node-", Prefix: true},
		"node-*-non_protected":         {Key: "node-", Prefix: true},
		"node-*-2-protected":           {Key: "node-", Prefix: true, Counter: "-2"},
		"node":                         {Key: "node"},
		"no*de":                        {Key: "no*de"},
		"a*b*":                         {Key: "a*b", Prefix: true},
		"frontend/*":                   {Key: "frontend/", Prefix: true},
		"node-main-5-protected":        {Key: "node-main-5"},
		"../node-*":                    {Key: "node-", Prefix: true},
		"node-*-notanumber":            {Key: "node-*-notanumber"},
		"*":                            {},
		"*-7-protected":                {},
		"":                             {},
		strings.Repeat("k", 141) + "*": {},
	} {
		got, err := Fallback(raw)
		if (err != nil) != (want == Want{}) {
			t.Errorf("Fallback(%q): %v", raw, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Fallback(%q): %s", raw, diff)
		}
	}
}

func TestWantMatches(t *testing.T) {
	long := "node-" + strings.Repeat("é", 200) + "-2"
	for _, tt := range []struct {
		fallback, key string
		want          bool
	}{
		{"node-*", "node-abc", true},
		{"node-*", "node-", true},
		{"node-*", "nod", false},
		{"node-*", "go-node-", false},
		{"node-*", "node-abc-2", true},
		{"node-*-2", "node-abc-2", true},
		{"node-*-2", "node-abc-12", false},
		{"node-*-2", "node-abc", false},
		{"node-*", long, true},
		{"node-*-2", long, true},
		{"node-*-3", long, false},
		{"node-é*", long, true},
		{"node-è*", long, false},
		{"node", "node", true},
		{"node", "node-", false},
		{"a/*", "a/b", true},
		{"a/*", "ab", false},
	} {
		w, err := Fallback(tt.fallback)
		if err != nil {
			t.Fatal(err)
		}
		e, err := ParseObject("", space(t, "").Object(Protected, tt.key, somePaths))
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Matches(e); got != tt.want {
			t.Errorf("%q matches %.30q: %v, want %v", tt.fallback, tt.key, got, tt.want)
		}
		if tt.want {
			if object, start := space(t, "").Object(Protected, tt.key, somePaths), space(t, "").Objects(Candidate{Want: w, Scope: Protected}); !strings.HasPrefix(object, start) {
				t.Errorf("%s does not start with %s: listing would not find it", object, start)
			}
		}
	}
}

func TestCandidates(t *testing.T) {
	prefix, err := Fallback("n-*")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range Candidates(Unprotected, "n-1", somePaths, []Want{{Key: "n"}, prefix}) {
		got = append(got, fmt.Sprintf("%s %s %v", c.Scope, c, c.Any))
	}
	want := []string{
		"unprotected n-1 false", "protected n-1 false", "unprotected n-1 true", "protected n-1 true",
		"unprotected n false", "protected n false", "unprotected n true", "protected n true",
		"unprotected n-* true", "protected n-* true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, c := range Candidates(Protected, "n-1", somePaths, []Want{prefix}) {
		if c.Scope != Protected {
			t.Errorf("a protected job would read %s", c.Scope)
		}
	}
}

func FuzzObject(f *testing.F) {
	for _, seed := range []string{"key", "a/b", "..", "../../x", "!2F", "!!", "x!!y", "-protected", "\x00", "\xff", strings.Repeat("é/", 300), strings.Repeat("a", 139) + "/////", strings.Repeat("a", 400), "k.", "", "*"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		key, err := Clean(raw)
		if err != nil {
			return
		}
		s := space(t, "p")
		object := s.Object(Unprotected, key, somePaths)
		name, ok := strings.CutPrefix(object, "p/b84e2e8d/42/unprotected/")
		if !ok || strings.Contains(name, "/") || len(name) > 255 || name == "." || name == ".." {
			t.Fatalf("%q leads to %s", raw, object)
		}
		e, err := ParseObject("p", object)
		if err != nil {
			t.Fatalf("%q: %v", key, err)
		}
		if e.Whole && e.Readable != key {
			t.Errorf("%q came back as %q", key, e.Readable)
		}
		if !(Want{Key: key}).Matches(e) {
			t.Errorf("%q does not match itself", key)
		}
	})
}
