// Package key decides where a cache lies: what a key from GitLab means, whose
// entries a job may read, in which order, and what the objects are called. It
// touches neither files nor the network.
package key

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"gitlab.com/gitlab-org/gitlab-runner/cache/cachekey"
)

// ErrEmpty says that nothing of a key is left once it is cleaned. GitLab Runner
// then uses "<job name>/<ref>".
var ErrEmpty = errors.New("nothing is left of the cache key")

// suffixes are what GitLab appends to keys where caches are separated by
// protection. A scope says the same, and the storage enforces it, so they go:
// an unprotected job could otherwise never find what a protected one saved.
// What stands before them, a "-<n>" counting how often the project's caches
// were cleared, stays.
var suffixes = []string{"-non_protected", "-protected"}

// Clean returns the key that an expanded cache:key stands for: made harmless
// exactly as GitLab Runner does it (cache/cachekey), without GitLab's suffix
// for protection.
func Clean(raw string) (string, error) {
	key, err := cachekey.Sanitize(raw)
	if err != nil || key == "" {
		return "", fmt.Errorf("%q: %w", raw, ErrEmpty)
	}
	for _, suffix := range suffixes {
		rest, ok := strings.CutSuffix(key, suffix)
		if !ok {
			continue
		}
		// Once more: what is the end now may be a dot or a space.
		if key, err = cachekey.Sanitize(rest); err != nil || key == "" {
			return "", fmt.Errorf("%q: %w", raw, ErrEmpty)
		}
		break
	}
	return key, nil
}

var (
	hexRun = regexp.MustCompile(`[0-9A-Za-z]+`)
	sha1ed = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// Immutable reports whether a key names contents, so that an entry once written
// is never written again: it holds a digest of lockfiles, or a token of 40 hex
// digits, which GitLab makes of cache:key:files. commit is the job's own
// commit: a key made of that names a pipeline whose jobs add to one cache, not
// its contents.
func Immutable(key, commit string) bool {
	for _, token := range hexRun.FindAllString(key, -1) {
		if sha1ed.MatchString(token) && token != commit {
			return true
		}
	}
	return false
}
