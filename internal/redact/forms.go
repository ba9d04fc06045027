package redact

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// minSecret is the shortest value that is looked for, in bytes. A shorter one
// occurs in ordinary text by chance: a log full of marks is unreadable, and
// the place of a mark tells what it hides. What we fetch is far longer.
const minSecret = 8

// minLine is the shortest line of a value of several lines that is looked for
// on its own: PEM blocks and kubeconfigs are often printed with an indent.
const minLine = 16

// forms returns what a value may look like in a log: itself, its lines, and
// what base64, URL and JSON encoding make of it.
func forms(value string) []string {
	if len(value) < minSecret {
		return nil
	}
	all := []string{value}
	if strings.ContainsAny(strings.TrimSpace(value), "\r\n") {
		for line := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == '\r' || r == '\n' }) {
			if line = strings.TrimSpace(line); len(line) >= minLine {
				all = append(all, line)
			}
		}
	}
	all = append(all, base64Forms(value)...)
	all = append(all, urlForms(value)...)
	all = append(all, jsonForms(value)...)
	slices.Sort(all)
	return slices.Compact(all)
}

// base64Forms returns the value encoded on its own, in one line or wrapped as
// base64(1) and openssl do, and what can be seen of it inside something larger
// that is encoded: at each of three alignments, without the characters at its
// ends that depend on its neighbours too.
func base64Forms(value string) []string {
	var all []string
	for _, alphabet := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		alone := alphabet.EncodeToString([]byte(value))
		all = append(all, alone)
		for _, width := range []int{76, 64} {
			all = append(all, wrap(alone, width))
		}
		for before := range 3 {
			encoded := alphabet.EncodeToString(append(make([]byte, before), value...))
			first, end := (before*8+5)/6, (before+len(value))*8/6
			all = append(all, encoded[first:end])
		}
	}
	return all
}

// wrap breaks s into lines of width characters.
func wrap(s string, width int) string {
	var lines []string
	for line := range slices.Chunk([]byte(s), width) {
		lines = append(lines, string(line))
	}
	return strings.Join(lines, "\n")
}

// urlForms returns the value as URLs carry it. Encoders differ in what they
// leave as it is, in how they write a space, and in upper and lower case.
func urlForms(value string) []string {
	var all []string
	for _, keep := range []string{
		"",                 // Go's and Python's query encoding, AWS signatures
		"/",                // Python's quote
		"!'()*",            // JavaScript's encodeURIComponent
		"$&+=:@",           // Go's path segments
		"$&+,/:;=@",        // whole paths
		"!'()*;/?:@&=+$,#", // JavaScript's encodeURI
	} {
		for _, space := range []string{"%20", "+"} {
			for _, digits := range []string{"%%%02X", "%%%02x"} {
				all = append(all, percent(value, keep, space, digits))
			}
		}
	}
	return all
}

// percent encodes every byte that is neither unreserved in RFC 3986 nor in
// keep.
func percent(value, keep, space, format string) string {
	var b strings.Builder
	for i := range len(value) {
		switch c := value[i]; {
		case c == ' ':
			b.WriteString(space)
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			strings.IndexByte("-._~", c) >= 0, strings.IndexByte(keep, c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, format, c)
		}
	}
	return b.String()
}

// jsonForms returns the value inside a JSON string, with and without the
// escapes that make it fit for HTML.
func jsonForms(value string) []string {
	var all []string
	for _, html := range []bool{true, false} {
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(html)
		if err := enc.Encode(value); err != nil {
			continue // a string can always be encoded
		}
		quoted := strings.TrimSuffix(b.String(), "\n")
		all = append(all, quoted[1:len(quoted)-1])
	}
	return all
}
