package shell

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"gitlab.com/gitlab-org/gitlab-runner/cache/cachekey"

	"podlane/test/runnersim/spec"
)

// cacheEntry is one key of a cache and its archive, relative to the checkout.
// The alternate archive is the one that FF_HASH_CACHE_KEYS would use.
type cacheEntry struct {
	key, file, alternate string
}

// cacheEntry works out a key's archive. A warning is for the job log, an error
// means that this cache is skipped.
func (s *script) cacheEntry(userKey string) (entry cacheEntry, warning string, err error) {
	raw := path.Join("/", s.Job.JobInfo.Name, s.Job.GitInfo.Ref)[1:]
	if userKey != "" {
		raw = s.Vars.ExpandValue(userKey)
	}
	key, err := cachekey.Sanitize(raw)
	switch {
	case err != nil:
		warning = err.Error()
	case key != raw:
		warning = fmt.Sprintf("cache key %q sanitized to %q", raw, key)
	}
	if key == "" {
		return cacheEntry{}, warning, errors.New("empty cache key")
	}
	sum := sha256.Sum256([]byte(key))
	entry.key = key
	if entry.file, err = s.cacheFile(key); err != nil {
		return cacheEntry{}, warning, err
	}
	entry.alternate, err = s.cacheFile(hex.EncodeToString(sum[:]))
	return entry, warning, err
}

func (s *script) cacheFile(key string) (string, error) {
	file, err := filepath.Rel(s.ProjectDir, path.Join(s.CacheDir, key, "cache.zip"))
	if err != nil {
		return "", errors.New("inability to make the cache file path relative to the build directory (is the build directory absolute?)")
	}
	return file, nil
}

// policy tells whether a cache's policy allows the wanted direction.
func (s *script) policy(c spec.Cache, wanted, key string) (bool, error) {
	switch p := s.Vars.ExpandValue(c.Policy); p {
	case "", "pull-push":
		return true, nil
	case "pull", "push":
		return p == wanted, nil
	default:
		return false, errPolicy(p, key)
	}
}

func (s *script) restoreCache() error {
	s.inProject()
	skip := true
	for _, c := range s.Job.Cache {
		if len(pathArgs(c.Paths, c.Untracked)) == 0 {
			continue
		}
		skip = false
		if err := s.restoreOne(c); err != nil {
			return err
		}
	}
	if skip {
		return ErrSkip
	}
	s.chown(s.CacheDir, s.RootDir)
	return nil
}

func (s *script) restoreOne(c spec.Cache) error {
	first, ok := s.entryOrNotice(c.Key, "extraction")
	if !ok {
		return nil
	}
	allowed, err := s.policy(c, "pull", first.key)
	if err != nil {
		return err
	}
	if !allowed {
		s.notice("Not downloading cache %s due to policy", first.key)
		return nil
	}
	entries := []cacheEntry{first}
	for _, k := range s.fallbackKeys(c) {
		if entry, ok := s.entryOrNotice(k, "extraction"); ok {
			entries = append(entries, entry)
		}
	}
	s.guard("Extracting cache", func() { s.extract(entries) })
	return nil
}

// fallbackKeys are the entry's own and CACHE_FALLBACK_KEY, unless that one asks
// for a protected branch's cache.
func (s *script) fallbackKeys(c spec.Cache) []string {
	var keys []string
	for _, k := range c.FallbackKeys {
		if k = s.Vars.ExpandValue(k); k != "" {
			keys = append(keys, k)
		}
	}
	global := s.Vars.Value("CACHE_FALLBACK_KEY")
	switch {
	case global == "":
	case strings.HasSuffix(strings.TrimRight(global, ". "), "-protected"):
		s.warning("CACHE_FALLBACK_KEY %q not allowed to end in %q", global, "-protected")
	default:
		keys = append(keys, global)
	}
	return keys
}

func (s *script) entryOrNotice(key, what string) (cacheEntry, bool) {
	entry, warning, err := s.cacheEntry(key)
	if warning != "" {
		s.warning("%s", warning)
	}
	if err != nil {
		s.notice("Skipping cache %s due to %v", what, err)
		return cacheEntry{}, false
	}
	return entry, true
}

// extract tries one archive after the other.
func (s *script) extract(entries []cacheEntry) {
	s.notice("Checking cache for %s...", entries[0].key)
	s.ifOutput(Quote, Runner, "cache-extractor", "--file", entries[0].file, "--timeout", s.cacheTimeout())
	s.notice("Successfully extracted cache")
	s.orElse()
	s.warning("Failed to extract cache")
	if len(entries) > 1 {
		s.extract(entries[1:])
	}
	s.end()
}

func (s *script) cacheTimeout() string { return strconv.Itoa(s.Settings.CacheRequestTimeout) }

func (s *script) archiveCache(success bool) error {
	s.inProject()
	skip := true
	for _, c := range s.Job.Cache {
		paths := pathArgs(c.Paths, c.Untracked)
		if !spec.Applies(c.When, success) || len(paths) == 0 {
			continue
		}
		skip = false
		if err := s.archiveOne(c, paths); err != nil {
			return err
		}
	}
	if skip {
		return ErrSkip
	}
	return nil
}

func (s *script) archiveOne(c spec.Cache, paths []string) error {
	entry, ok := s.entryOrNotice(c.Key, "archiving")
	if !ok {
		return nil
	}
	allowed, err := s.policy(c, "push", entry.key)
	if err != nil {
		return err
	}
	if !allowed {
		s.notice("Not uploading cache %s due to policy", entry.key)
		return nil
	}
	s.guard("Creating cache", func() { s.archive(entry, paths) })
	return nil
}

func (s *script) archive(entry cacheEntry, paths []string) {
	s.notice("Creating cache %s...", entry.key)
	env := s.tmpFile(cacheEnvFile)
	s.linef("cat << EOF > %s\nCACHE_METADATA=\"%s\"\nEOF\n", env, dotEnv(cacheMetadata(entry.key)))
	args := append([]string{
		"cache-archiver", "--file", entry.file, "--alternate-file", entry.alternate,
		"--timeout", s.cacheTimeout(),
	}, paths...)
	s.ifOutput(Quote, Runner, append(args, "--env-file", env)...)
	s.notice("Created cache")
	s.orElse()
	s.warning("Failed to create cache")
	s.end()
	s.removeFile(env)
}

func cacheMetadata(key string) string {
	// A map of strings always has a JSON form.
	data, _ := json.Marshal(map[string]string{"cachekey": key})
	return string(data)
}

// dotEnv escapes a value for a dotenv file.
var dotEnv = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`).Replace
