package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestReplace(t *testing.T) {
	const secret = "s3cr3t/Key+with=odd chars&<more>"
	std, web := base64.StdEncoding.EncodeToString, base64.URLEncoding.EncodeToString
	tests := []struct {
		name    string
		secrets []string
		in      string
		want    string
	}{
		{"nothing to find", []string{secret}, "some text", "some text"},
		{"plain", []string{secret}, "a " + secret + " b", "a [redacted] b"},
		{"twice", []string{secret}, secret + secret, "[redacted][redacted]"},
		{"almost", []string{secret}, secret[:len(secret)-1], secret[:len(secret)-1]},
		{"beginning before the whole", []string{secret}, secret[:10] + secret, secret[:10] + "[redacted]"},
		{"too short to be looked for", []string{"1234567"}, "1234567", "1234567"},
		{"short but long enough", []string{"12345678"}, "1123456788", "1[redacted]8"},
		{"one inside another", []string{"abcdefghij", "cdefghijklmnop"}, "abcdefghijklmnop", "[redacted]"},
		{"one starts another", []string{"abcdefgh", "abcdefghij"}, "abcdefghij abcdefghx", "[redacted] [redacted]x"},
		{"overlapping itself", []string{"abcabcabc"}, "abcabcabcabc.", "[redacted]."},
		{"base64", []string{secret}, std([]byte(secret)), "[redacted]="},
		{"base64 for URLs", []string{secret}, web([]byte(secret)) + "\n", "[redacted]=\n"},
		{
			"base64, wrapped",
			[]string{strings.Repeat("0123456789", 10)},
			wrap(std([]byte(strings.Repeat("0123456789", 10))), 76), "[redacted]==",
		},
		{"query", []string{secret}, "?a=" + url.QueryEscape(secret) + "&b", "?a=[redacted]&b"},
		{"path", []string{secret}, "/" + url.PathEscape(secret) + "/", "/[redacted]/"},
		{"lower case digits", []string{"abc/def+ghi"}, "abc%2fdef%2bghi", "[redacted]"},
		{
			"one line of several",
			[]string{"-----BEGIN KEY-----\n0123456789abcdef\n-----END KEY-----\n"},
			"    0123456789abcdef\n", "    [redacted]\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for size := 1; size <= len(tt.in)+1; size++ {
				if got := through(t, tt.secrets, tt.in, size); got != tt.want {
					t.Fatalf("written in pieces of %d bytes:\n got %q\nwant %q", size, got, tt.want)
				}
			}
		})
	}
}

// Whatever surrounds a secret, at most the characters that it shares with its
// neighbours are left of it.
func TestBase64InsideOtherData(t *testing.T) {
	const secret = "s3cr3t/Key+\xff\xfe?>with=odd chars"
	for before := range 7 {
		for after := range 4 {
			data := strings.Repeat("x", before) + secret + strings.Repeat("y", after)
			for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
				text := enc.EncodeToString([]byte(data))
				got := through(t, []string{secret}, text, 5)
				if !strings.Contains(got, Mark) || len(got) > len(Mark)+(before+after)*4/3+6 {
					t.Errorf("%d bytes before, %d after: %q became %q", before, after, text, got)
				}
			}
		}
	}
}

func TestJSON(t *testing.T) {
	const secret = "line one\nline \"two\" <b> \\ \x01"
	text, err := json.Marshal(map[string]string{"k": secret})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := through(t, []string{secret}, string(text), 3), `{"k":"[redacted]"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// through writes in to a writer in pieces of a size.
func through(t *testing.T, secrets []string, in string, size int) string {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out)
	for _, s := range secrets {
		w.Add(New(s))
	}
	for piece := range slices.Chunk([]byte(in), size) {
		if n, err := w.Write(piece); n != len(piece) || err != nil {
			t.Fatalf("Write(%q) = %d, %v, want %d", piece, n, err, len(piece))
		}
		for i := range piece { // the caller may use its buffer again
			piece[i] = '#'
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	set := new(Set)
	for _, s := range secrets {
		set.Add(New(s))
	}
	if got := set.String(in); got != out.String() {
		t.Errorf("String says %q, Writer %q", got, out.String())
	}
	return out.String()
}

func TestHoldsBackOnlyWhatMayBeASecret(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out)
	w.Add(New("abcdefghij"))
	for _, step := range []struct{ write, want string }{
		{"hello", "hello"},
		{" ab", "hello "},
		{"cdef", "hello "},
		{"x", "hello abcdefx"},
		{"abcdefghij", "hello abcdefx[redacted]"},
		{"$ ", "hello abcdefx[redacted]$ "},
	} {
		if _, err := io.WriteString(w, step.write); err != nil {
			t.Fatal(err)
		}
		if out.String() != step.want {
			t.Errorf("after %q: %q is passed on, want %q", step.write, out.String(), step.want)
		}
	}
}

func TestWithoutSecretsWritesPassUntouched(t *testing.T) {
	rec := &recorder{}
	w := NewWriter(rec)
	w.Add(Secret{}, New("short"))
	p := []byte("as it is")
	if n, err := w.Write(p); n != len(p) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
	if len(rec.writes) != 1 || &rec.writes[0][0] != &p[0] {
		t.Error("the writer below did not get the caller's own bytes")
	}
}

func TestErrorsOfTheWriterBelow(t *testing.T) {
	broken := errors.New("broken pipe")
	w := NewWriter(&recorder{err: broken})
	w.Add(New("abcdefghij"))
	if n, err := io.WriteString(w, "text"); n != 0 || !errors.Is(err, broken) {
		t.Errorf("Write = %d, %v, want 0 and the writer's own error", n, err)
	}
	w = NewWriter(&recorder{err: broken})
	w.Add(New("abcdefghij"))
	if n, err := io.WriteString(w, "abc"); n != 3 || err != nil {
		t.Errorf("Write = %d, %v, want it held back", n, err)
	}
	if err := w.Flush(); !errors.Is(err, broken) {
		t.Errorf("Flush = %v, want the writer's own error", err)
	}
}

type recorder struct {
	writes [][]byte
	err    error
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	r.writes = append(r.writes, p)
	return len(p), nil
}

func TestWritersAndAddersAtOnce(t *testing.T) {
	set := new(Set)
	var wg sync.WaitGroup
	for i := range 4 {
		secret := fmt.Sprintf("secret-number-%d", i)
		wg.Go(func() {
			var out bytes.Buffer
			w := set.Writer(&out)
			w.Add(New(secret))
			for range 50 {
				fmt.Fprintf(w, "a %s b\n", secret)
			}
			if err := w.Flush(); err != nil {
				t.Error(err)
			}
			if want := strings.Repeat("a [redacted] b\n", 50); out.String() != want {
				t.Errorf("got %q", out.String())
			}
		})
	}
	wg.Wait()
}

// The writer does what a simple program does that sees all at once, whatever
// the write boundaries, and nothing that was to be hidden is left.
func FuzzWriter(f *testing.F) {
	f.Add("abcdefgh", "efghijklmnop", "xabcdefghijklmnopx", uint64(1))
	f.Add("aaaaaaaa", "aaaaaaaaab", "aaaaaaaaaaaaaaaaaaaab", uint64(2))
	f.Add("s3cr3t/Key+w", "zzzzzzzz", "s3cr3t%2FKey%2bw s3cr3t/Key+w czNjcjN0L0tleSt3", uint64(3))
	f.Add("line one is long\nline two is long", "12345678", "line one is long\n  line two is long1234567", uint64(4))
	f.Fuzz(func(t *testing.T, one, two, text string, seed uint64) {
		secrets := []string{one, two}
		// Weave what is to be found into the text, more often than chance would.
		rng := rand.New(rand.NewPCG(seed, 1))
		all := slices.Concat(forms(one), forms(two))
		for range rng.IntN(4) {
			if len(all) > 0 {
				form := all[rng.IntN(len(all))]
				at := rng.IntN(len(text) + 1)
				text = text[:at] + form[rng.IntN(2)*rng.IntN(len(form)):] + text[at:]
			}
		}
		want := atOnce(all, text)

		var out bytes.Buffer
		w := NewWriter(&out)
		w.Add(New(one), New(two))
		for rest := text; rest != ""; {
			n := 1 + rng.IntN(min(len(rest), 1+rng.IntN(40)))
			if _, err := io.WriteString(w, rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Fatalf("secrets %q in %q:\n got %q\nwant %q", secrets, text, out.String(), want)
		}
		for _, form := range all {
			if strings.ContainsAny(form, "[]") || strings.Contains(Mark, form) {
				continue // the mark itself may complete it
			}
			if strings.Contains(out.String(), form) {
				t.Errorf("%q is left in %q", form, out.String())
			}
		}
	})
}

// atOnce is the plainest way to say what a Writer does.
func atOnce(forms []string, text string) string {
	var b strings.Builder
	hiddenTo := 0
	for i := range len(text) {
		longest := 0
		for _, form := range forms {
			if strings.HasPrefix(text[i:], form) {
				longest = max(longest, len(form))
			}
		}
		if longest > 0 && i >= hiddenTo {
			b.WriteString(Mark)
		}
		if longest > 0 {
			hiddenTo = max(hiddenTo, i+longest)
		}
		if i >= hiddenTo {
			b.WriteByte(text[i])
		}
	}
	return b.String()
}

func BenchmarkWriter(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(n int) string {
		const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
		s := make([]byte, n)
		for i := range s {
			s[i] = letters[rng.IntN(len(letters))]
		}
		return string(s)
	}
	var secrets []Secret
	for i := range 20 {
		secrets = append(secrets, New(random([]int{40, 95, 40, 1200}[i%4])))
	}
	var logText strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&logText, "2026-11-21T14:48:29Z INFO compiling package number %d of github.com/example/project/internal/thing (cached)\n", i)
	}
	for _, bb := range []struct {
		name    string
		secrets []Secret
		text    string
		piece   int
	}{
		{"log", secrets, logText.String(), 32 << 10},
		{"log by line", secrets, logText.String(), 100},
		{"base64", secrets, random(256 << 10), 32 << 10},
		{"no secrets", nil, logText.String(), 32 << 10},
	} {
		b.Run(bb.name, func(b *testing.B) {
			w := NewWriter(io.Discard)
			w.Add(bb.secrets...)
			text := []byte(bb.text)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				for piece := range slices.Chunk(text, bb.piece) {
					_, _ = w.Write(piece)
				}
			}
		})
	}
}
