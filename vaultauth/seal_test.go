package vaultauth

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"podlane/internal/redact"
)

// warnings is a store's warn, and what it was told.
type warnings struct {
	mu   sync.Mutex
	said []string
}

func (w *warnings) warn(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, fmt.Sprintf(format, args...))
}

func newStore(t *testing.T, dir string, key redact.Secret, identity string) (*Store, *warnings) {
	t.Helper()
	w := &warnings{}
	s, err := NewStore(dir, key, identity, w.warn)
	if err != nil {
		t.Fatal(err)
	}
	return s, w
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func someState() roleState {
	life := lifetime{noon, noon.Add(40 * time.Minute), noon.Add(time.Hour)}
	return roleState{
		Token:  &token{redact.New("hvs.the-token"), "accessor", []string{"default", "ci"}, true, life},
		Former: []token{{redact.New("hvs.the-former"), "accessor2", nil, false, life}},
		Kube:   map[string]KubeToken{"kubernetes ci jobs": {redact.New("kube-token"), "jobs", "ci", noon, noon.Add(time.Minute), noon.Add(time.Hour)}},
	}
}

func TestStore(t *testing.T) {
	t.Parallel()
	dir, key := t.TempDir(), NewKey()
	s, w := newStore(t, dir, key, "job 1")
	if got := s.load(); len(got.Roles) != 0 {
		t.Errorf("nothing there, but loaded %v", got)
	}
	s.update("one", someState(), noon)
	s.update("two", roleState{}, noon)
	again, w2 := newStore(t, dir, key, "job 1")
	if diff := cmp.Diff(state{Roles: map[string]roleState{"one": someState(), "two": {}}}, again.load(), cmp.AllowUnexported(token{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	info, err := os.Stat(s.path())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the mode is %s", info.Mode())
	}
	sealed, err := os.ReadFile(s.path())
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"hvs.", "kube", "one", "accessor"} {
		if bytes.Contains(sealed, []byte(word)) {
			t.Errorf("the file shows %q", word)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("there are %v (%v), want the one file", entries, err)
	}
	// What has ended is not kept.
	s.update("one", someState(), noon.Add(2*time.Hour))
	if got := s.load().Roles["one"]; len(got.Former) != 0 || len(got.Kube) != 0 {
		t.Errorf("kept %+v", got)
	}
	if err := s.Remove(); err != nil {
		t.Error(err)
	}
	if err := s.Remove(); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if len(w.said)+len(w2.said) > 0 {
		t.Errorf("warned %q %q", w.said, w2.said)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	if NewKey().Equal(NewKey()) {
		t.Error("two keys are the same")
	}
	for _, key := range []string{"", "short", strings.Repeat("?", 43), strings.Repeat("A", 44)} {
		if _, err := NewStore(t.TempDir(), redact.New(key), "job", nil); err == nil || (key != "" && strings.Contains(err.Error(), key)) {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

// Whatever is wrong with the file, it counts as empty, with a warning, and the
// next update puts it right.
func TestStoreIgnoresWhatItDidNotWrite(t *testing.T) {
	t.Parallel()
	key := NewKey()
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, path string)
		store func(t *testing.T, dir string) (*Store, *warnings) // nil: the same job
		want  string
	}{
		{"first bit changed", func(t *testing.T, path string) { edit(t, path, func(b []byte) []byte { b[0] ^= 1; return b }) }, nil, "changed"},
		{"last bit changed", func(t *testing.T, path string) {
			edit(t, path, func(b []byte) []byte { b[len(b)-1] ^= 128; return b })
		}, nil, "changed"},
		{"cut", func(t *testing.T, path string) { edit(t, path, func(b []byte) []byte { return b[:len(b)-1] }) }, nil, "cut short"},
		{"nearly nothing", func(t *testing.T, path string) { edit(t, path, func(b []byte) []byte { return b[:7] }) }, nil, "too few"},
		{"empty", func(t *testing.T, path string) { edit(t, path, func([]byte) []byte { return nil }) }, nil, "too few"},
		{"longer", func(t *testing.T, path string) { edit(t, path, func(b []byte) []byte { return append(b, 0) }) }, nil, "changed"},
		{"huge", func(t *testing.T, path string) { check(t, os.Truncate(path, 1<<30)) }, nil, "too many"},
		{"open to the group", func(t *testing.T, path string) { check(t, os.Chmod(path, 0o640)) }, nil, "mode"},
		{"a link to a good one", func(t *testing.T, path string) {
			check(t, os.Rename(path, path+".real"))
			check(t, os.Symlink(path+".real", path))
		}, nil, "symbolic link"},
		{"a folder", func(t *testing.T, path string) {
			check(t, os.Remove(path))
			check(t, os.Mkdir(path, 0o700))
		}, nil, "not a plain file"},
		{"a pipe", func(t *testing.T, path string) {
			check(t, os.Remove(path))
			check(t, syscall.Mkfifo(path, 0o600))
		}, nil, "not a plain file"},
		{"another job's", func(*testing.T, string) {}, func(t *testing.T, dir string) (*Store, *warnings) {
			return newStore(t, dir, key, "job 2")
		}, "another job"},
		{"another key", func(*testing.T, string) {}, func(t *testing.T, dir string) (*Store, *warnings) {
			return newStore(t, dir, NewKey(), "job 1")
		}, "another job"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s, w := newStore(t, dir, key, "job 1")
			s.update("ci", someState(), noon)
			tt.spoil(t, s.path())
			if tt.store != nil {
				s, w = tt.store(t, dir)
			}
			if got := s.load(); len(got.Roles) != 0 {
				t.Errorf("loaded %v", got)
			}
			if len(w.said) != 1 || !strings.Contains(w.said[0], tt.want) || strings.Contains(w.said[0], "hvs.") {
				t.Errorf("warned %q, want one line that says %q", w.said, tt.want)
			}
			if tt.name == "a folder" {
				return // nothing of ours, so not ours to take away
			}
			s.update("ci", someState(), noon)
			if got := s.load(); len(got.Roles) != 1 {
				t.Errorf("after an update: loaded %v; warned %q", got, w.said)
			}
		})
	}
}

func TestStoreOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	s, w := newStore(t, t.TempDir(), NewKey(), "job")
	s.update("ci", someState(), noon)
	check(t, os.Chown(s.path(), 12345, -1))
	if got := s.load(); len(got.Roles) != 0 {
		t.Errorf("loaded %v", got)
	}
	if len(w.said) != 1 || !strings.Contains(w.said[0], "user 12345") {
		t.Errorf("warned %q", w.said)
	}
}

func TestStoreThatCanNotBeWritten(t *testing.T) {
	t.Parallel()
	s, w := newStore(t, filepath.Join(t.TempDir(), "gone"), NewKey(), "job")
	s.update("ci", someState(), noon)
	if len(w.said) != 1 || !strings.Contains(w.said[0], "not kept") {
		t.Errorf("warned %q", w.said)
	}
}

// Of stages that write at once one wins; none finds half a file.
func TestStoreWrittenByManyAtOnce(t *testing.T) {
	t.Parallel()
	dir, key := t.TempDir(), NewKey()
	var wg sync.WaitGroup
	for i := range 8 {
		s, w := newStore(t, dir, key, "job")
		wg.Go(func() {
			for range 20 {
				s.update(fmt.Sprintf("role-%d", i), someState(), noon)
				if len(s.load().Roles) == 0 {
					t.Error("loaded nothing")
				}
			}
			if len(w.said) > 0 {
				t.Errorf("warned %q", w.said)
			}
		})
	}
	wg.Wait()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("there are %v (%v), want the one file", entries, err)
	}
}

func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	key := NewKey()
	s, err := NewStore(dir, key, "job", nil)
	if err != nil {
		f.Fatal(err)
	}
	s.update("ci", someState(), noon)
	good, err := os.ReadFile(s.path())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:40])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		st, err := s.open(slices.Clone(sealed))
		if (err == nil) != bytes.Equal(sealed, good) {
			t.Errorf("opened %d bytes to %v, %v", len(sealed), st, err)
		}
	})
}

// Whatever JSON was sealed: it decodes to something that encodes to the same.
func FuzzDecodeState(f *testing.F) {
	good, err := state{Roles: map[string]roleState{"ci": someState()}}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"roles":{"ci":{"token":null,"kube":{"":{}}}}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		st, err := decodeState(data)
		if err != nil {
			return
		}
		for _, role := range st.Roles {
			_ = role.tokens(noon)
			_ = role.prune(noon)
		}
		again, err := st.encode()
		if err != nil {
			return // a date that JSON does not know
		}
		st2, err := decodeState(again)
		if err != nil {
			t.Fatalf("%q does not decode: %v", again, err)
		}
		if diff := cmp.Diff(st, st2, cmp.AllowUnexported(token{})); diff != "" {
			t.Errorf("(-first +second):\n%s", diff)
		}
	})
}

func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	check(t, err)
	check(t, os.WriteFile(path, change(data), 0o600))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
