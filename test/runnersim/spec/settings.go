package spec

import (
	"fmt"
	"strconv"
	"strings"
)

// Settings are what a job's variables ask of the runner itself
// (gitlab-runner common/build_settings.go).
type Settings struct {
	DebugTrace bool

	GitClonePath         string
	GitStrategy          string // clone, fetch, none or empty
	GitCheckout          bool
	GitCleanFlags        []string
	GitFetchFlags        []string
	SubmoduleStrategy    string // none, normal, recursive or invalid
	SubmodulePaths       []string
	SubmoduleDepth       int
	SubmoduleUpdateFlags []string
	SubmoduleForceHTTPS  bool
	LFSSkipSmudge        bool

	GetSourcesAttempts       int
	RestoreCacheAttempts     int
	ArtifactDownloadAttempts int

	AfterScriptIgnoreErrors bool
	CacheRequestTimeout     int // minutes

	// Problems are values that were not understood; defaults stand in.
	Problems []string
}

// NewSettings reads a job's settings from its expanded variables.
func NewSettings(j *Job, vars Variables) Settings {
	r := settingsReader{vars: vars}
	strategy := "clone"
	if j.AllowGitFetch {
		strategy = "fetch"
	}
	s := Settings{
		DebugTrace:               r.bool("CI_DEBUG_TRACE", false),
		GitClonePath:             vars.Value("GIT_CLONE_PATH"),
		GitStrategy:              r.oneOf("GIT_STRATEGY", strategy, strategy, "clone", "fetch", "none", "empty"),
		GitCheckout:              r.bool("GIT_CHECKOUT", true),
		GitCleanFlags:            r.words("GIT_CLEAN_FLAGS", "-ffdx"),
		GitFetchFlags:            r.words("GIT_FETCH_EXTRA_FLAGS", "--prune", "--quiet"),
		SubmoduleStrategy:        r.oneOf("GIT_SUBMODULE_STRATEGY", "none", "invalid", "none", "normal", "recursive"),
		SubmodulePaths:           strings.Fields(vars.Value("GIT_SUBMODULE_PATHS")),
		SubmoduleDepth:           r.int("GIT_SUBMODULE_DEPTH", j.GitInfo.Depth),
		SubmoduleUpdateFlags:     r.words("GIT_SUBMODULE_UPDATE_FLAGS"),
		SubmoduleForceHTTPS:      r.bool("GIT_SUBMODULE_FORCE_HTTPS", false),
		LFSSkipSmudge:            r.bool("GIT_LFS_SKIP_SMUDGE", false),
		GetSourcesAttempts:       r.attempts("GET_SOURCES_ATTEMPTS"),
		RestoreCacheAttempts:     r.attempts("RESTORE_CACHE_ATTEMPTS"),
		ArtifactDownloadAttempts: r.attempts("ARTIFACT_DOWNLOAD_ATTEMPTS"),
		AfterScriptIgnoreErrors:  r.bool("AFTER_SCRIPT_IGNORE_ERRORS", true),
		CacheRequestTimeout:      r.int("CACHE_REQUEST_TIMEOUT", 10),
	}
	if s.GitStrategy == "none" || s.GitStrategy == "empty" {
		s.GitCheckout = false
		s.SubmoduleStrategy = "none"
	}
	s.Problems = r.problems
	return s
}

type settingsReader struct {
	vars     Variables
	problems []string
}

func (r *settingsReader) problem(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

func (r *settingsReader) bool(key string, def bool) bool {
	raw := r.vars.Value(key)
	if raw == "" {
		return def
	}
	b, err := strconv.ParseBool(raw)
	if err != nil {
		r.problem("%s: expected bool got %q, using default value: %v", key, raw, def)
		return def
	}
	return b
}

func (r *settingsReader) int(key string, def int) int {
	raw := r.vars.Value(key)
	if raw == "" {
		return def
	}
	n, err := strconv.Atoi(raw)
	if err != nil {
		r.problem("%s: expected int got %q, using default value: %v", key, raw, def)
		return def
	}
	return n
}

func (r *settingsReader) attempts(key string) int {
	n := r.int(key, 1)
	clamped := max(1, min(10, n))
	if clamped != n {
		r.problem("%s: number of attempts out of the range [1, 10], clamping to: %d", key, clamped)
	}
	return clamped
}

func (r *settingsReader) words(key string, def ...string) []string {
	switch raw := r.vars.Value(key); raw {
	case "":
		return def
	case "none":
		return nil
	default:
		return strings.Fields(raw)
	}
}

// oneOf returns the value if it is allowed, def if there is none, and wrong if
// it is something else.
func (r *settingsReader) oneOf(key, def, wrong string, allowed ...string) string {
	raw := r.vars.Value(key)
	if raw == "" {
		return def
	}
	for _, a := range allowed {
		if raw == a {
			return raw
		}
	}
	r.problem("%s: expected one of %s, got %q", key, strings.Join(allowed, ", "), raw)
	return wrong
}
