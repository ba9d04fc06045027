// Package secretscan looks for secrets where none may be: in what the API
// server logs, in the arguments of processes, in files that are left behind and
// in job logs.
package secretscan

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"podlane/internal/redact"
)

// patterns are secrets that are known by their looks.
var patterns = []struct {
	name string
	re   *regexp.Regexp
}{
	{"a Vault token", regexp.MustCompile(`\bhv[sbr]\.[A-Za-z0-9_-]{20,}`)},
	{"an OpenBao token", regexp.MustCompile(`(?:^|[^A-Za-z0-9_.'-])[sbr]\.[A-Za-z0-9]{24}\b`)},
	{"a JWT", regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}`)},
	{"an AWS secret key", regexp.MustCompile(`(?i)(?:aws_?secret_?access_?key|secret_?access_?key|\bsecret_?key)["']?\s*[=:]\s*["']?[A-Za-z0-9/+]{30,}`)},
	{"a presigned URL", regexp.MustCompile(`X-Amz-Signature=[0-9a-f]{64}`)},
}

// Scan collects what it finds. It is safe for concurrent use.
type Scan struct {
	known redact.Set

	mu    sync.Mutex
	found []string
	seen  map[string]int // how many texts of a kind
	kept  []text         // for Again

	stop func()
}

type text struct{ where, text string }

// New makes a scan that knows some secrets by their value, besides those that it
// knows by their looks.
func New(known ...string) *Scan {
	s := &Scan{seen: map[string]int{}, stop: func() {}}
	s.Know(known...)
	return s
}

// Know adds values that are secrets from now on, in whatever encoding.
func (s *Scan) Know(values ...string) {
	secrets := make([]redact.Secret, len(values))
	for i, value := range values {
		secrets[i] = redact.New(value)
	}
	s.known.Add(secrets...)
}

// Text scans a text of some kind: a "trace", say. Name tells which.
func (s *Scan) Text(kind, name, text string) {
	s.count(kind)
	s.keep(kind+" "+name, text)
	s.scanLooks(kind+" "+name, text)
}

// keep scans a text for what is known, and keeps it for Again.
func (s *Scan) keep(where, content string) {
	s.scanKnown(where, content)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = append(s.kept, text{where, content})
}

// Again looks at all texts and arguments of processes once more, for values that
// were not known yet when they came.
func (s *Scan) Again() {
	s.mu.Lock()
	kept := s.kept
	s.kept = nil
	s.mu.Unlock()
	for _, k := range kept {
		s.scanKnown(k.where, k.text)
	}
}

func (s *Scan) count(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[kind]++
}

// Seen is how many texts of a kind have been scanned: a scan of nothing proves
// nothing.
func (s *Scan) Seen(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[kind]
}

func (s *Scan) scanKnown(where, text string) {
	clean := s.known.String(text)
	if clean == text {
		return
	}
	at := 0
	for at < len(clean) && clean[at] == text[at] {
		at++
	}
	s.report(where, "a value that was to be kept secret", text, at)
}

func (s *Scan) scanLooks(where, text string) {
	for _, p := range patterns {
		if at := p.re.FindStringIndex(text); at != nil {
			s.report(where, p.name, text, at[0])
		}
	}
}

// report shows what comes before the secret, and little of it.
func (s *Scan) report(where, what, text string, at int) {
	line := fmt.Sprintf("%s shows %s: %q", where, what, text[max(0, at-160):min(len(text), at+12)]+"…")
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.found) < 20 && !slices.Contains(s.found, line) {
		s.found = append(s.found, line)
	}
}

// Log scans a file of lines from an offset on. It is not kept: know all before.
func (s *Scan) Log(kind, file string, from int64) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("scan for secrets: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return fmt.Errorf("scan for secrets: %w", err)
	}
	lines := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			s.count(kind)
			s.scanKnown(kind+" "+file, line)
			s.scanLooks(kind+" "+file, line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("scan for secrets: %w", err)
		}
	}
}

// Files scans what lies below a folder, names included. A job that has just
// ended may not have tidied up: it looks again until there is nothing to report
// or the context ends.
func (s *Scan) Files(ctx context.Context, dir string) error {
	for {
		look := &Scan{seen: map[string]int{}}
		err := look.files(dir, &s.known)
		if err != nil {
			return fmt.Errorf("scan for secrets: %w", err)
		}
		if len(look.found) == 0 || ctx.Err() != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.found = append(s.found, look.found...)
			s.seen["file"] += look.seen["file"]
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (s *Scan) files(dir string, known *redact.Set) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // it went while we looked
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		s.count("file")
		text := path + "\n" + string(data)
		if known.String(text) != text {
			s.report("file "+path, "a value that was to be kept secret", "", 0)
		}
		s.scanLooks("file "+path, text)
		return nil
	})
}

// Err says what was found.
func (s *Scan) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.found) == 0 {
		return nil
	}
	return errors.New("secrets where none may be:\n  " + strings.Join(s.found, "\n  "))
}
