package pipeline

import (
	"crypto/sha1" //nolint:gosec // GitLab's own choice for cache keys
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"podlane/test/gitlabsim"
)

// key computes what GitLab sends as a cache's key, but for the suffix of
// protected refs: files become the SHA-1 over the sorted blob ids of those that
// exist, after a prefix or the cache's number
// (GitLab lib/gitlab/ci/pipeline/seed/build/cache.rb).
func (c Cache) key(number int, blobs map[string]string) string {
	if len(c.Files) == 0 {
		if c.Key == "" {
			return "default"
		}
		return c.Key
	}
	prefix := c.Prefix
	if prefix == "" {
		prefix = strconv.Itoa(number)
	}
	return prefix + "-" + filesDigest(c.Files, blobs)
}

func filesDigest(files []string, blobs map[string]string) string {
	var ids []string
	for _, pattern := range files {
		for path, id := range blobs {
			if ok, err := doublestar.Match(pattern, path); err == nil && ok {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) == 0 {
		return "default"
	}
	slices.Sort(ids)
	sum := sha1.Sum([]byte(strings.Join(slices.Compact(ids), "-"))) //nolint:gosec // as above
	return hex.EncodeToString(sum[:])
}

// caches with their keys computed.
func (j Job) caches(blobs map[string]string) []gitlabsim.Cache {
	var list []gitlabsim.Cache
	for i, c := range j.Cache {
		c.Cache.Key = c.key(i, blobs)
		list = append(list, c.Cache)
	}
	return list
}
