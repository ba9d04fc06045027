package trace_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"podlane/test/runnersim/trace"
)

func TestMask(t *testing.T) {
	cases := map[string]struct {
		phrases, prefixes []string
		in, want          string
	}{
		"nothing":               {in: "plain\r\n\x00\xff bytes", want: "plain\r\n\x00\xff bytes"},
		"phrase":                {phrases: []string{"hunter2!"}, in: "a hunter2! b hunter2!", want: "a [MASKED] b [MASKED]"},
		"short phrase":          {phrases: []string{"x"}, in: "axa", want: "a[MASKED]a"},
		"longest phrase":        {phrases: []string{"secret", "secret-longer"}, in: "secret-longer secret-long", want: "[MASKED] [MASKED]-long"},
		"almost":                {phrases: []string{"aab"}, in: "aaab aac", want: "a[MASKED] aac"},
		"over lines":            {phrases: []string{"one\ntwo"}, in: "one\none\ntwo\n", want: "one\n[MASKED]\n"},
		"trimmed":               {phrases: []string{" secret\n", "", "  "}, in: "secret\n", want: "[MASKED]\n"},
		"beginning at the end":  {phrases: []string{"secret"}, in: "not a secre", want: "not a secre"},
		"url parameter":         {in: "GET /x?private_token=abc&a=b", want: "GET /x?private_token=[MASKED]&a=b"},
		"url parameter, case":   {in: "?X-Amz-Signature=00ff\n", want: "?X-Amz-Signature=[MASKED]\n"},
		"url parameter, end":    {in: "?a=1&rss_token=abc", want: "?a=1&rss_token=[MASKED]"},
		"harmless parameters":   {in: "?token=abc&private_tokens=d&x-amz-security-token-and-more=e", want: "?token=abc&private_tokens=d&x-amz-security-token-and-more=e"},
		"question in question":  {in: "??private_token=abc ", want: "??private_token=[MASKED] "},
		"token":                 {in: "glpat-Abc_1-2.x= next", want: "glpat-[MASKED] next"},
		"token at the end":      {in: "glcbt-64_abc", want: "glcbt-[MASKED]"},
		"prefix alone":          {in: "glpat- x", want: "glpat- x"},
		"instance's own prefix": {prefixes: []string{"acme-"}, in: "acme-1234!", want: "acme-[MASKED]!"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for size := range len(c.in) {
				if got := masked(t, c.phrases, c.prefixes, c.in, size+1); got != c.want {
					t.Fatalf("in writes of %d bytes: %q, want %q", size+1, got, c.want)
				}
			}
		})
	}
}

// masked writes in pieces of size bytes.
func masked(t *testing.T, phrases, prefixes []string, in string, size int) string {
	t.Helper()
	var out bytes.Buffer
	w := trace.Mask(&out, phrases, prefixes)
	for rest := in; rest != ""; {
		n := min(size, len(rest))
		if m, err := io.WriteString(w, rest[:n]); m != n || err != nil {
			t.Fatalf("Write: %d, %v, want %d", m, err, n)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestMaskRandom compares with replacing in one go, for phrases that don't
// overlap.
func TestMaskRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var in strings.Builder
		for range rng.IntN(60) {
			in.WriteByte("abc"[rng.IntN(3)])
		}
		want := strings.ReplaceAll(in.String(), "abca", "[MASKED]")
		if got := masked(t, []string{"abca"}, nil, in.String(), 1+rng.IntN(7)); got != want {
			t.Fatalf("%q: %q, want %q", in.String(), got, want)
		}
	}
}

func BenchmarkMask(b *testing.B) {
	line := []byte(strings.Repeat("2026-11-21 compiling package github.com/example/project/internal/thing\n", 450))
	w := trace.Mask(io.Discard, []string{"hunter2-hunter2", "another-secret", "glcbt-64_token", "s3cr3tS3cr3t"}, nil)
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if _, err := w.Write(line); err != nil {
			b.Fatal(err)
		}
	}
}
