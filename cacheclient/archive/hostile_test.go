package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// forge makes an archive of raw frames and whatever entries it is told to.
func forge(t testing.TB, raw [][]byte, entries ...record) []byte {
	t.Helper()
	w := indexWriter{}
	w.carried.modes = firstModes
	for i := range entries {
		w.add(&entries[i])
	}
	return forgeIndex(t, raw, func(frames []frame) []byte { return w.finish(frames) })
}

func forgeIndex(t testing.TB, raw [][]byte, index func([]frame) []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, encoderOptions...)
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	var frames []frame
	var data, last []byte
	for i, r := range raw {
		if i == 0 || !bytes.Equal(r, last) { // bombs are all the same
			data, last = enc.EncodeAll(r, nil), r
		}
		frames = append(frames, frame{size: len(data), length: len(r), digest: sha256.Sum256(data)})
		b = append(b, data...)
	}
	sealed, _, err := sealIndex(index(frames))
	if err != nil {
		t.Fatal(err)
	}
	return append(b, sealed...)
}

func file(up int, name string, size, data int64) record {
	return record{kind: kindFile, up: up, name: []byte(name), mode: 0o644, size: size, data: data}
}

func directory(up int, name string) record {
	return record{kind: kindDir, up: up, name: []byte(name), mode: 0o755}
}

func symlink(up int, name, target string) record {
	return record{kind: kindSymlink, up: up, name: []byte(name), target: []byte(target)}
}

// attempt restores an archive into a directory beside which there is one that
// nothing may touch, and returns what came of it.
func attempt(t *testing.T, b []byte, o RestoreOptions, l Limits) (string, error) {
	t.Helper()
	base := target(t)
	root, outside := filepath.Join(base, "root"), filepath.Join(base, "outside")
	for _, dir := range []string{root, outside, filepath.Join(root, "mine")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "precious"), []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := seen(t, base)
	x, err := ReadIndex(b, int64(len(b)), l)
	if err == nil {
		_, err = Restore(t.Context(), root, x, fetchFrom(b), o)
	}
	after := seen(t, base)
	for path, line := range before {
		if path != "root" && after[path] != line {
			t.Errorf("%s was %q, is %q", path, line, after[path])
		}
	}
	for path := range after {
		if _, ok := before[path]; !ok && (err != nil || !strings.HasPrefix(path, "root/")) {
			t.Errorf("%s was created (error %v)", path, err)
		}
	}
	return root, err
}

func TestHostileArchives(t *testing.T) {
	block := make([]byte, 4096)
	for name, test := range map[string]struct {
		raw     [][]byte
		entries []record
		want    error
		message string
	}{
		"absolute path":        {entries: []record{file(0, "/etc/passwd", 1, 512)}, message: `has the name "/etc/passwd"`},
		"parent directory":     {entries: []record{directory(0, ".."), file(0, "f", 1, 512)}, message: `has the name ".."`},
		"file named dot dot":   {entries: []record{file(0, "..", 1, 512)}, message: `has the name ".."`},
		"dot":                  {entries: []record{directory(0, ".")}, message: `has the name "."`},
		"path in a name":       {entries: []record{file(0, "mine/../../outside/f", 1, 512)}, message: "has the name"},
		"zero byte":            {entries: []record{file(0, "f\x00g", 1, 512)}, message: "has the name"},
		"empty name":           {entries: []record{{kind: kindFile, name: []byte{}, data: 512}}, message: "has the name"},
		"long name":            {entries: []record{file(0, strings.Repeat("n", 256), 1, 512)}, message: "damaged name"},
		"long path":            {entries: deep(40), message: "has a path longer than 4095 bytes"},
		"out of the root":      {entries: []record{directory(0, "d"), file(2, "f", 1, 512)}, message: "leaves the root"},
		"below a link":         {entries: []record{symlink(0, "d", "../outside"), directory(0, "d"), file(0, "precious", 1, 512)}, message: "is a duplicate"},
		"duplicate file":       {entries: []record{file(0, "f", 1, 512), file(0, "f", 1, 1536)}, message: "is a duplicate"},
		"duplicate directory":  {entries: []record{directory(0, "d"), file(0, "f", 1, 512), directory(1, "d")}, message: "is a duplicate"},
		"not in order":         {entries: []record{file(0, "g", 1, 512), file(0, "f", 1, 1536)}, message: "not in order"},
		"setuid":               {entries: []record{{kind: kindFile, name: []byte("f"), mode: 0o4755, data: 512}}, message: "has mode 04755"},
		"sticky directory":     {entries: []record{{kind: kindDir, name: []byte("d"), mode: 0o1777}}, message: "has mode 01777"},
		"device":               {entries: []record{{kind: 6, name: []byte("d")}}, message: "unknown kind"},
		"unknown kind":         {entries: []record{{kind: 0, name: []byte("d")}}, message: "unknown kind"},
		"hard link out":        {entries: []record{{kind: kindLink, name: []byte("l"), back: 1}}, message: "is a link to no entry before it"},
		"hard link to a dir":   {entries: []record{directory(0, "d"), {kind: kindLink, up: 1, name: []byte("l"), back: 1}}, message: "no file of the archive"},
		"hard link to a link":  {entries: []record{symlink(0, "a", "../outside/precious"), {kind: kindLink, name: []byte("l"), back: 1}}, message: "no file of the archive"},
		"link to nothing":      {entries: []record{symlink(0, "l", "")}, message: "damaged target"},
		"target with a zero":   {entries: []record{symlink(0, "l", "a\x00b")}, message: "zero byte"},
		"contents past end":    {entries: []record{file(0, "f", 4096, 512)}, message: "behind the end of the tar"},
		"huge file":            {entries: []record{file(0, "f", 1<<49, 512)}, message: "behind the end of the tar"},
		"size overflows":       {entries: []record{file(0, "f", 1<<62, 512)}, message: "damaged size"},
		"owner is no owner":    {entries: []record{{kind: kindFile, name: []byte("f"), uid: 1<<32 - 1, data: 512}}, message: "damaged owner"},
		"bad nanoseconds":      {entries: []record{{kind: kindFile, name: []byte("f"), nanos: 1e9, data: 512}}, message: "damaged time"},
		"frame too long":       {raw: [][]byte{make([]byte, maxFrameLength+1)}, message: "frame 0 has a damaged length"},
		"more than the limits": {entries: many(1001), want: ErrLimit, message: "it has 1001 entries, at most 1000 are taken"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.raw == nil {
				test.raw = [][]byte{block}
			}
			if test.want == nil {
				test.want = ErrFormat
			}
			_, err := attempt(t, forge(t, test.raw, test.entries...), RestoreOptions{}, Limits{Entries: 1000})
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.message) {
				t.Errorf("error is %v, expected %v with %q", err, test.want, test.message)
			}
		})
	}
}

func deep(levels int) []record {
	var all []record
	for range levels {
		all = append(all, directory(0, strings.Repeat("d", 200)))
	}
	return all
}

func many(n int) []record {
	var all []record
	for i := range n {
		all = append(all, directory(min(i, 1), string(binary.BigEndian.AppendUint32([]byte("d"), 0x21212121+uint32(i)))))
	}
	return all
}

func TestIndexThatLies(t *testing.T) {
	block := make([]byte, 4096)
	f := file(0, "f", 100, 512)
	entries := func(frames []frame) []byte {
		w := indexWriter{}
		w.carried.modes = firstModes
		w.add(&f)
		return w.finish(frames)
	}
	for name, lie := range map[string]func([]frame) []byte{
		"longer frame":     func(fs []frame) []byte { fs[0].length++; return entries(fs) },
		"shorter frame":    func(fs []frame) []byte { fs[0].length--; return entries(fs) },
		"other digest":     func(fs []frame) []byte { fs[0].digest[3] ^= 1; return entries(fs) },
		"larger size":      func(fs []frame) []byte { fs[0].size++; return entries(fs) },
		"one frame more":   func(fs []frame) []byte { return entries(append(fs, fs[0])) },
		"no frame":         func([]frame) []byte { return entries(nil) },
		"billions":         func([]frame) []byte { return binary.AppendUvarint(nil, 1<<39) },
		"cut":              func(fs []frame) []byte { b := entries(fs); return b[:len(b)-1] },
		"more than it has": func(fs []frame) []byte { return append(entries(fs), 0) },
		"nothing":          func([]frame) []byte { return nil },
		"endless varint":   func([]frame) []byte { return bytes.Repeat([]byte{0xff}, 100) },
		"not its own frame": func(fs []frame) []byte {
			other := sha256.Sum256([]byte("x"))
			fs[0].digest = other
			return entries(fs)
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := attempt(t, forgeIndex(t, [][]byte{block}, lie), RestoreOptions{}, Limits{})
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error is %v, expected %v", err, ErrFormat)
			}
		})
	}
}

// A frame whose digest is right may still be anything.
func TestFrameThatIsNone(t *testing.T) {
	f := file(0, "f", 100, 512)
	for name, data := range map[string][]byte{
		"noise":     []byte(strings.Repeat("noise", 100)),
		"skippable": {0x5c, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4},
		"bomb":      bomb(t, 64<<20),
	} {
		t.Run(name, func(t *testing.T) {
			w := indexWriter{}
			w.carried.modes = firstModes
			w.add(&f)
			fr := frame{size: len(data), length: 4096, digest: sha256.Sum256(data)}
			sealed, _, err := sealIndex(w.finish([]frame{fr}))
			if err != nil {
				t.Fatal(err)
			}
			if _, err = attempt(t, append(bytes.Clone(data), sealed...), RestoreOptions{}, Limits{}); !errors.Is(err, ErrFormat) {
				t.Errorf("error is %v, expected %v", err, ErrFormat)
			}
		})
	}
}

func bomb(t *testing.T, n int) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return enc.EncodeAll(make([]byte, n), nil)
}

func TestBombs(t *testing.T) {
	zero := make([]byte, maxFrameLength)
	raw := make([][]byte, 600) // 4.7 GiB
	for i := range raw {
		raw[i] = zero
	}
	b := forge(t, raw, file(0, "f", 599*maxFrameLength, 512))
	for name, l := range map[string]Limits{"ratio": {}, "bytes": {Bytes: 1 << 30}} {
		t.Run(name, func(t *testing.T) {
			if _, err := attempt(t, b, RestoreOptions{}, l); !errors.Is(err, ErrLimit) {
				t.Errorf("error is %v, expected %v", err, ErrLimit)
			}
		})
	}
	t.Run("index", func(t *testing.T) {
		b := forgeIndex(t, [][]byte{zero}, func([]frame) []byte { return make([]byte, 65<<20) })
		if _, err := attempt(t, b, RestoreOptions{}, Limits{}); !errors.Is(err, ErrLimit) {
			t.Errorf("error is %v, expected %v", err, ErrLimit)
		}
	})
	t.Run("millions of entries", func(t *testing.T) {
		b := forgeIndex(t, [][]byte{zero}, func(fs []frame) []byte {
			w := indexWriter{entries: 10_000_000}
			return append(w.finish(fs), make([]byte, 10_000_000)...)
		})
		if _, err := attempt(t, b, RestoreOptions{}, Limits{}); !errors.Is(err, ErrLimit) {
			t.Errorf("error is %v, expected %v", err, ErrLimit)
		}
	})
}

func TestNoArchive(t *testing.T) {
	good := forge(t, [][]byte{make([]byte, 4096)}, file(0, "f", 100, 512))
	for name, b := range map[string][]byte{
		"empty":     {},
		"short":     []byte("x"),
		"text":      []byte(strings.Repeat("this is no archive\n", 100)),
		"truncated": good[:len(good)-1],
		"half":      good[:len(good)/2],
		"cut front": good[1:],
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := attempt(t, b, RestoreOptions{}, Limits{}); !errors.Is(err, ErrFormat) {
				t.Errorf("error is %v, expected %v", err, ErrFormat)
			}
		})
	}
	t.Run("flipped bit", func(t *testing.T) {
		for i := range good {
			b := bytes.Clone(good)
			b[i] ^= 0x10
			x, err := ReadIndex(b, int64(len(b)), Limits{})
			if err == nil {
				_, err = Restore(t.Context(), target(t), x, fetchFrom(b), RestoreOptions{})
			}
			if err == nil && i >= len(good)-footerSize-skippableHead-int(good[len(good)-footerSize+16]) && i < len(good)-footerSize-int(good[len(good)-footerSize+16]) {
				continue // the skippable frame's head is for other programs
			}
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrLimit) {
				var short *ShortTailError
				if !errors.As(err, &short) {
					t.Errorf("byte %d: error is %v, expected %v", i, err, ErrFormat)
				}
			}
		}
	})
}

func TestTailTooShort(t *testing.T) {
	b := forge(t, [][]byte{make([]byte, 4096)}, file(0, "f", 100, 512))
	tail := b[len(b)-footerSize:]
	_, err := ReadIndex(tail, int64(len(b)), Limits{})
	var short *ShortTailError
	if !errors.As(err, &short) {
		t.Fatalf("error is %v, expected a ShortTailError", err)
	}
	if _, err := ReadIndex(b[int64(len(b))-short.Need:], int64(len(b)), Limits{}); err != nil {
		t.Error(err)
	}
}

func TestLinksLeadNoFileAway(t *testing.T) {
	// Everything is in order here but the names differ only in case, as on a
	// file system that does not tell them apart; and the link is there first.
	b := forge(t, [][]byte{make([]byte, 4096)}, symlink(0, "D", "../outside"), directory(0, "d"), file(0, "new", 100, 512))
	root, err := attempt(t, b, RestoreOptions{}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(root, "d/new")); err != nil {
		t.Error(err)
	}
}

func TestLinkInTheWay(t *testing.T) {
	for name, link := range map[string]string{"out": "../outside", "inside": "other"} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			root, outside := filepath.Join(base, "root"), filepath.Join(base, "outside")
			for _, dir := range []string{root, outside, filepath.Join(root, "other")} {
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(link, filepath.Join(root, "d")); err != nil {
				t.Fatal(err)
			}
			before := seen(t, base)
			b := forge(t, [][]byte{make([]byte, 4096)}, directory(0, "d"), file(0, "f", 100, 512))
			_, err := Restore(t.Context(), root, open(t, b), fetchFrom(b), RestoreOptions{})
			if !errors.Is(err, ErrConflict) {
				t.Errorf("error is %v, expected %v", err, ErrConflict)
			}
			if after := seen(t, base); len(after) != len(before) {
				t.Errorf("there is %v, was %v", after, before)
			}
		})
	}
}

func TestAllow(t *testing.T) {
	b := forge(t, [][]byte{make([]byte, 4096)}, record{kind: kindImplied, name: []byte(".git")}, record{kind: kindImplied, name: []byte("hooks")}, file(0, "pre-commit", 100, 512))
	var asked []string
	_, err := attempt(t, b, RestoreOptions{Allow: func(p string) bool { asked = append(asked, p); return false }}, Limits{})
	if !errors.Is(err, ErrFormat) || len(asked) != 1 || asked[0] != ".git/hooks/pre-commit" {
		t.Errorf("error is %v, asked for %q", err, asked)
	}
}

func TestFailingFetch(t *testing.T) {
	root := oddTree(t)
	b, _ := pack(t, root, WriteOptions{})
	x := open(t, b)
	broken := errors.New("connection lost")
	for name, fetch := range map[string]Fetch{
		"at once": func(context.Context, int64, int64) (io.ReadCloser, error) { return nil, broken },
		"later": func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
			if offset > 0 {
				return nil, broken
			}
			return fetchFrom(b)(ctx, offset, n)
		},
		"truncated": func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
			return fetchFrom(b)(ctx, offset, n-1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := target(t)
			if _, err := Restore(t.Context(), got, x, fetch, RestoreOptions{Workers: 3, Connections: 3}); err == nil {
				t.Error("no error")
			}
			if left := listTree(t, got); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}
