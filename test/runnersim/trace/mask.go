package trace

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
)

var masked = []byte("[MASKED]")

// tokenPrefixes start GitLab's own tokens (gitlab-runner
// common/buildlogger/internal/tokensanitizer, with FF_MASK_ALL_DEFAULT_TOKENS).
var tokenPrefixes = []string{
	"glpat-", "gloas-", "gldt-", "glrt-", "glcbt-", "glrtr-", "glptt-", "glft-", "glimt-",
	"glagent-", "glsoat-", "glffct-", "_gitlab_session=", "gltok-",
}

// secretParams are the URL parameters whose values are masked (gitlab-runner
// common/buildlogger/internal/urlsanitizer).
var secretParams = []string{
	"private_token", "authenticity_token", "rss_token",
	"x-amz-signature", "x-amz-credential", "x-amz-security-token",
}

// Mask returns a writer that hides phrases, the values of secret URL parameters
// and what follows a token's prefix on the way to next, also across writes. It
// holds back no more than what may still become a phrase; Close lets that go,
// next stays open. Phrases have no minimal length: GitLab sees to that.
func Mask(next io.Writer, phrases, prefixes []string) io.WriteCloser {
	tokens := &tokenMasker{next: next, matcher: newMatcher(append(slices.Clone(prefixes), tokenPrefixes...))}
	params := &paramMasker{next: tokens}
	return &phraseMasker{next: params, matcher: newMatcher(phrases)}
}

// matcher finds the first of several phrases in a stream.
type matcher struct {
	// phrases by their first byte, longest first: of two at one place the
	// longer counts.
	phrases [256][][]byte
	held    []byte // the end of the stream so far, may be a phrase's beginning
}

func newMatcher(phrases []string) matcher {
	var m matcher
	for _, p := range phrases {
		if p = strings.TrimSpace(p); p != "" {
			m.phrases[p[0]] = append(m.phrases[p[0]], []byte(p))
		}
	}
	for _, p := range m.phrases {
		slices.SortFunc(p, func(a, b []byte) int { return len(b) - len(a) })
	}
	return m
}

// next finds the first phrase in data: its place and length. A length of 0
// says that there is none and that what starts at the place may become one.
func (m *matcher) next(data []byte, final bool) (at, length int) {
	for at = range data {
		rest := data[at:]
		for _, p := range m.phrases[data[at]] {
			if bytes.HasPrefix(rest, p) {
				return at, len(p)
			}
			if !final && len(rest) < len(p) && bytes.HasPrefix(p, rest) {
				return at, 0
			}
		}
	}
	return len(data), 0
}

// take joins what was held back and new data.
func (m *matcher) take(p []byte) []byte {
	if len(m.held) == 0 {
		return p
	}
	data := append(m.held, p...)
	m.held = nil
	return data
}

// phraseMasker replaces phrases.
type phraseMasker struct {
	matcher
	next io.WriteCloser
}

func (m *phraseMasker) Write(p []byte) (int, error) {
	return len(p), m.scan(m.take(p), false)
}

func (m *phraseMasker) scan(data []byte, final bool) error {
	for {
		at, length := m.matcher.next(data, final)
		if err := write(m.next, data[:at]); err != nil {
			return err
		}
		if length == 0 {
			m.held = slices.Clone(data[at:])
			return nil
		}
		if err := write(m.next, masked); err != nil {
			return err
		}
		data = data[at+length:]
	}
}

func (m *phraseMasker) Close() error {
	return errors.Join(m.scan(m.take(nil), true), m.next.Close())
}

// paramMasker replaces the values of secret URL parameters: it reads ?key= or
// &key=, and drops bytes up to the value's end. Keys pass at once, they are no
// secret.
type paramMasker struct {
	next  io.WriteCloser
	key   []byte // of the parameter being read, with its ? or &
	value bool   // inside a secret value
}

const longestParam = len("x-amz-security-token") + 1

func (m *paramMasker) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		n, err := m.step(p)
		if err != nil {
			return total - len(p), err
		}
		p = p[n:]
	}
	return total, nil
}

// step handles as much of p as belongs together.
func (m *paramMasker) step(p []byte) (int, error) {
	switch {
	case m.value:
		end := bytes.IndexFunc(p, endsParam)
		if end < 0 {
			return len(p), nil
		}
		m.value = false
		return end, write(m.next, masked)
	case len(m.key) == 0:
		start := bytes.IndexAny(p, "?&")
		if start < 0 {
			return len(p), write(m.next, p)
		}
		m.key = append(m.key, p[start])
		return start + 1, write(m.next, p[:start+1])
	}
	m.readKey(p[0])
	return 1, write(m.next, p[:1])
}

func (m *paramMasker) readKey(c byte) {
	switch {
	case c == '?' || c == '&':
		m.key = append(m.key[:0], c)
	case c == '=':
		m.value = slices.Contains(secretParams, strings.ToLower(string(m.key[1:])))
		m.key = m.key[:0]
	case len(m.key) == longestParam:
		m.key = m.key[:0]
	default:
		m.key = append(m.key, c)
	}
}

func endsParam(r rune) bool { return r == '?' || r == '&' || r <= ' ' || r == 0x7f }

func (m *paramMasker) Close() error {
	var err error
	if m.value {
		err = write(m.next, masked)
	}
	return errors.Join(err, m.next.Close())
}

// tokenMasker keeps a token's prefix and replaces the rest of the token.
type tokenMasker struct {
	matcher
	next  io.Writer
	after bool // right behind a prefix
	token bool // and at least one byte of the token was dropped
}

func (m *tokenMasker) Write(p []byte) (int, error) {
	return len(p), m.scan(m.take(p), false)
}

func (m *tokenMasker) scan(data []byte, final bool) error {
	for {
		if m.after {
			n := tokenLength(data)
			m.token = m.token || n > 0
			data = data[n:]
			if len(data) == 0 {
				return nil
			}
			if err := m.endToken(); err != nil {
				return err
			}
		}
		at, length := m.matcher.next(data, final)
		if err := write(m.next, data[:at+length]); err != nil {
			return err
		}
		if length == 0 {
			m.held = slices.Clone(data[at:])
			return nil
		}
		m.after = true
		data = data[at+length:]
	}
}

func (m *tokenMasker) endToken() error {
	hide := m.token
	m.after, m.token = false, false
	if !hide {
		return nil
	}
	return write(m.next, masked)
}

func (m *tokenMasker) Close() error {
	return errors.Join(m.scan(m.take(nil), true), m.endToken())
}

func tokenLength(data []byte) int {
	for i, c := range data {
		switch {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z':
		case strings.IndexByte("-._=", c) >= 0:
		default:
			return i
		}
	}
	return len(data)
}

func write(w io.Writer, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	_, err := w.Write(p)
	return err
}
