package image

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
)

// Snapshot remembers what entries were like, for Since.
type Snapshot map[string]string

// Take reads all entries' contents.
func Take(entries []Entry) (Snapshot, error) {
	s := Snapshot{}
	for _, e := range entries {
		fingerprint, err := e.fingerprint()
		if err != nil {
			return nil, err
		}
		s[e.Name] = fingerprint
	}
	return s, nil
}

// Since returns the entries that are new or different: the layer to put on top.
// What was removed stays visible; adding packages removes nothing of note.
func (s Snapshot) Since(entries []Entry) ([]Entry, error) {
	var out []Entry
	for _, e := range entries {
		fingerprint, err := e.fingerprint()
		if err != nil {
			return nil, err
		}
		if s[e.Name] != fingerprint {
			out = append(out, e)
		}
	}
	return out, nil
}

func (e Entry) fingerprint() (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%v %d %d %q\n", e.Mode, e.UID, e.GID, e.Link)
	h.Write(e.Content)
	if e.Source != "" {
		f, err := os.Open(e.Source)
		if err != nil {
			return "", err
		}
		defer f.Close()
		if _, err := io.Copy(h, f); err != nil {
			return "", err
		}
	}
	return string(h.Sum(nil)), nil
}
