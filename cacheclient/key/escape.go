package key

import (
	"errors"
	"strings"
)

// Letters, digits and -_. stand for themselves, every other byte is '!' and two
// hex digits: S3 counts all of these as safe. The escaping of a prefix is a
// prefix of the escaping.
const (
	escape = '!'
	// cut stands where the middle of a long key was left out; no byte is
	// escaped like that.
	cut = "!!"
	// ellipsis is the same for people.
	ellipsis = "…"

	// A name is one file name on servers that keep objects as files: at most
	// 255 bytes, of which the digests and their dots take 82.
	maxHead     = 131
	maxTail     = 40
	maxReadable = maxHead + len(cut) + maxTail
)

const hexDigits = "0123456789ABCDEF"

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func escaped(key string) string {
	var b strings.Builder
	for i := range len(key) {
		if c := key[i]; isAlphanumeric(c) || c == '-' || c == '_' || c == '.' {
			b.WriteByte(c)
		} else {
			b.Write([]byte{escape, hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}

// readable returns the escaped key, without its middle if it is too long.
func readable(key string) string {
	s := escaped(key)
	if len(s) <= maxReadable {
		return s
	}
	head, tail := maxHead, len(s)-maxTail
	for i := 1; i <= 2; i++ { // never through an escaped byte
		if s[maxHead-i] == escape {
			head = maxHead - i
		}
	}
	for i := 1; i <= 2; i++ {
		if s[len(s)-maxTail-i] == escape {
			tail = len(s) - maxTail - i + 3
		}
	}
	return s[:head] + cut + s[tail:]
}

var errEscape = errors.New("wrongly escaped")

// unescape undoes readable; whole says that nothing was left out.
func unescape(s string) (key string, whole bool, err error) {
	head, tail, truncated := strings.Cut(s, cut)
	if head, err = unescapeAll(head); err != nil {
		return "", false, err
	}
	if !truncated {
		return head, true, nil
	}
	if tail, err = unescapeAll(tail); err != nil {
		return "", false, err
	}
	return head + ellipsis + tail, false, nil
}

func unescapeAll(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case isAlphanumeric(c) || c == '-' || c == '_' || c == '.':
			b.WriteByte(c)
		case c == escape && i+2 < len(s):
			hi, lo := strings.IndexByte(hexDigits, s[i+1]), strings.IndexByte(hexDigits, s[i+2])
			if hi < 0 || lo < 0 {
				return "", errEscape
			}
			b.WriteByte(byte(hi<<4 | lo))
			i += 2
		default:
			return "", errEscape
		}
	}
	return b.String(), nil
}
