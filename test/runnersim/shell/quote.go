package shell

import "strings"

// ansi maps the control characters that have a short form in ANSI-C quoting,
// and the two that end or escape it.
var ansi = map[byte]string{
	'\a': `\a`, '\b': `\b`, '\t': `\t`, '\n': `\n`, '\v': `\v`, '\f': `\f`, '\r': `\r`,
	'\'': `\'`, '\\': `\\`,
}

const hexDigits = "0123456789abcdef"

// Quote writes s as one word of a shell that knows $'...': plain where that is
// possible, everything that isn't printable ASCII in hexadecimal (gitlab-runner
// helpers/shell_escape.go).
func Quote(s string) string {
	if s == "" {
		return "''"
	}
	var b strings.Builder
	b.Grow(len(s) + len(s)/4)
	plain := true
	for i := range len(s) {
		c := s[i]
		if isPlain(c) {
			b.WriteByte(c)
			continue
		}
		plain = false
		switch short, ok := ansi[c]; {
		case ok:
			b.WriteString(short)
		case c >= ' ' && c <= '~':
			b.WriteByte(c)
		default:
			b.WriteString(`\x`)
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	if plain {
		return s
	}
	return "$'" + b.String() + "'"
}

func isPlain(c byte) bool {
	switch {
	case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z':
		return true
	}
	return strings.IndexByte(",-./@_", c) >= 0
}

// expandable puts s in double quotes as it is: the shell replaces variables in
// it.
func expandable(s string) string { return `"` + s + `"` }
