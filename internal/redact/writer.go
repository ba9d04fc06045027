package redact

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"
)

// Set is what is to be redacted. Writers share one; all methods may be called
// at any time from anywhere. The zero value redacts nothing.
type Set struct {
	mu      sync.Mutex
	forms   []string
	matcher atomic.Pointer[matcher]
}

// Add adds secrets and their encoded forms. Those of less than 8 bytes are
// left out: see minSecret.
func (s *Set) Add(secrets ...Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.forms)
	for _, secret := range secrets {
		for _, form := range forms(secret.Reveal()) {
			if !slices.Contains(s.forms, form) {
				s.forms = append(s.forms, form)
			}
		}
	}
	if len(s.forms) > before {
		s.matcher.Store(newMatcher(s.forms))
	}
}

// String returns text without secrets.
func (s *Set) String(text string) string {
	m := s.matcher.Load()
	if m == nil {
		return text
	}
	var r redaction
	return string(r.finish(m, []byte(text)))
}

// Each returns a writer to w that leaves out the set's secrets from each Write
// for itself: for lines, which hold a secret whole or not at all.
func (s *Set) Each(w io.Writer) io.Writer { return each{s, w} }

type each struct {
	set *Set
	w   io.Writer
}

func (e each) Write(p []byte) (int, error) {
	if _, err := io.WriteString(e.w, e.set.String(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Writer returns a writer to w that leaves out the set's secrets.
func (s *Set) Writer(w io.Writer) *Writer { return &Writer{set: s, w: w} }

// Writer replaces secrets and their encoded forms by [Mark] in what it passes
// on, also where a secret is spread over several writes. It holds back the end
// of a write only while that may be the beginning of a secret; Flush at the
// end of a stream. It is safe for concurrent use.
type Writer struct {
	set *Set
	w   io.Writer

	mu    sync.Mutex
	held  []byte
	state redaction
}

// NewWriter returns a writer to w with a set of its own.
func NewWriter(w io.Writer) *Writer { return new(Set).Writer(w) }

// Add adds secrets to the writer's set. What has been passed on already cannot
// be called back: add before the secret is used.
func (w *Writer) Add(secrets ...Secret) { w.set.Add(secrets...) }

// Write takes all of p, unless the writer below fails.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.set.matcher.Load()
	if m == nil {
		return w.w.Write(p)
	}
	text := p
	if len(w.held) > 0 {
		text = append(w.held, p...)
	}
	out, rest := w.state.advance(m, text)
	err := w.pass(out)
	// The rest lies in p, which is the caller's, or further back in held.
	w.held = append(w.held[:0], rest...)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush passes on what is held back. The stream may go on after it, but a
// secret that a Flush divides is not recognised.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.set.matcher.Load()
	if m == nil {
		return nil
	}
	out := w.state.finish(m, w.held)
	w.held = w.held[:0]
	return w.pass(out)
}

func (w *Writer) pass(out []byte) error {
	if len(out) == 0 {
		return nil
	}
	n, err := w.w.Write(out)
	if err == nil && n < len(out) {
		err = io.ErrShortWrite
	}
	return err
}

// redaction is how far the replacing of a stream has come.
type redaction struct {
	// hidden is how many of the first bytes to come are part of a secret whose
	// mark has been written.
	hidden int
}

// advance returns what of text can be passed on, and what must be seen again
// together with what follows it. Every byte that belongs to some form is
// replaced; forms that overlap share a mark, so that nothing of the second
// stays behind when the first is cut out.
func (r *redaction) advance(m *matcher, text []byte) (out, rest []byte) {
	keep := m.unfinished(text)
	return r.replace(m, text, keep), text[keep:]
}

// finish is advance at the end of the stream.
func (r *redaction) finish(m *matcher, text []byte) []byte {
	out := r.replace(m, text, len(text))
	r.hidden = 0
	return out
}

// replace returns text[:keep] without secrets, those that only start there
// included.
func (r *redaction) replace(m *matcher, text []byte, keep int) []byte {
	var out []byte // stays nil as long as text itself will do
	done := r.hidden
	for from := 0; ; {
		start, end := m.next(text, from)
		if start < 0 || start >= keep {
			break
		}
		if start >= done {
			out = append(out, text[done:start]...)
			out = append(out, Mark...)
		}
		done, from = max(done, end), start+1
	}
	// What starts after keep but inside a secret belongs to its mark as well,
	// and is found again when the rest is: until then it only counts as hidden
	// as far as is known.
	if r.hidden = max(done-keep, 0); done >= keep {
		return out
	}
	if out == nil && done == 0 {
		return text[:keep]
	}
	return append(out, text[done:keep]...)
}
