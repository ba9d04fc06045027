package executor

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"podlane/cacheclient/key"
	"podlane/executor/gitlab"
)

// cacheInput is all that a plan of a job's caches depends on.
type cacheInput struct {
	// Job's entries are planned.
	Job *gitlab.Job
	// Variables are the job's and the runner's, unexpanded.
	Variables gitlab.Variables
	// Project is the checkout's folder in the pod.
	Project string
	// Scope comes from trusted facts.
	Scope key.Scope
	// Immutable is the setting of that name.
	Immutable bool
}

// plannedCache is one entry of the job's cache keyword, worked out. It says
// what to look for, in which order, and what to save under which name.
type plannedCache struct {
	// Number is the entry's place in the job, from 0.
	Number int
	// Name is what the job log calls it: the key as its author wrote it.
	Name string
	// Paths are globs relative to the project, Untracked adds what git does
	// not track.
	Paths     []string
	Untracked bool
	Pull      bool
	Push      bool
	When      string
	// Lockfiles are the LOCKFILES_ variables that the key or a fallback
	// depends on.
	Lockfiles []string
	// Problem says why there can be no such cache: the other fields mean
	// little then.
	Problem error

	template  string
	fallbacks []string
	input     *cacheInput
}

var errNoPaths = errors.New("it has neither paths nor untracked")

// planCaches works out the job's caches. It is pure: digests of lockfiles come
// later, see plannedCache.resolve.
func planCaches(in cacheInput) []plannedCache {
	plans := make([]plannedCache, 0, len(in.Job.Cache))
	resolved := in.Variables.Resolve()
	for i, c := range in.Job.Cache {
		plans = append(plans, planCache(&in, resolved, i, c))
	}
	return plans
}

func planCache(in *cacheInput, vars gitlab.Variables, number int, c gitlab.Cache) plannedCache {
	p := plannedCache{Number: number, Untracked: c.Untracked, input: in, template: c.Key}
	if vars.Expand(p.template) == "" {
		// As the runner does (gitlab-runner shells/abstract.go:138).
		p.template = strings.TrimPrefix(path.Join("/", in.Job.JobInfo.Name, in.Job.GitInfo.Ref), "/")
	}
	p.Name = withoutSuffix(p.template)
	p.fallbacks = append(p.fallbacks, c.FallbackKeys...)
	if _, ok := vars.Lookup("CACHE_FALLBACK_KEY"); ok {
		p.fallbacks = append(p.fallbacks, "$CACHE_FALLBACK_KEY")
	}
	p.Lockfiles = lockfilesIn(in.Variables, append([]string{p.template}, p.fallbacks...))

	switch policy := vars.Expand(c.Policy); policy {
	case "", "pull-push":
		p.Pull, p.Push = true, true
	case "pull":
		p.Pull = true
	case "push":
		p.Push = true
	default:
		p.Problem = fmt.Errorf("policy %q: expected pull, push or pull-push", policy)
	}
	switch p.When = c.When; c.When {
	case "":
		p.When = "on_success"
	case "on_success", "on_failure", "always":
	default:
		p.Problem = fmt.Errorf("when %q: expected on_success, on_failure or always", c.When)
	}
	for _, glob := range c.Paths {
		glob = vars.Expand(glob)
		if glob == "" {
			continue
		}
		inside, ok := insideProject(in.Project, glob)
		if !ok {
			p.Problem = fmt.Errorf("path %s is outside the project, %s: a cache holds only what is in it", glob, in.Project)
			continue
		}
		p.Paths = append(p.Paths, inside)
	}
	if len(p.Paths) == 0 && !p.Untracked && p.Problem == nil {
		p.Problem = errNoPaths
	}
	return p
}

// insideProject makes a glob relative to the project's folder.
func insideProject(project, glob string) (string, bool) {
	if path.IsAbs(glob) {
		rest, ok := strings.CutPrefix(path.Clean(glob)+"/", project+"/")
		if !ok {
			return "", false
		}
		glob = "./" + rest
	}
	glob = path.Clean(glob)
	return glob, glob != ".." && !strings.HasPrefix(glob, "../")
}

// withoutSuffix is for names in the job log, where GitLab's suffix says
// nothing that the scope does not.
func withoutSuffix(k string) string {
	if rest, ok := strings.CutSuffix(k, "-non_protected"); ok {
		return rest
	}
	return strings.TrimSuffix(k, "-protected")
}

// wantedIn tells whether a stage saves the cache: succeeded says how the job
// ended.
func (p *plannedCache) wantedIn(succeeded bool) bool {
	switch p.When {
	case "always":
		return true
	case "on_failure":
		return !succeeded
	default:
		return succeeded
	}
}

// resolvedCache is a planned cache whose key is known.
type resolvedCache struct {
	*plannedCache
	// Key is the cleaned key.
	Key string
	// Immutable says that an entry once written stays as it is.
	Immutable bool
	// Place stands for its paths.
	Place key.Paths
	// Candidates are where to look, best first.
	Candidates []key.Candidate
	// Family is what the keys of the same cache with other lockfiles have in
	// common; nil if the key holds no digest of lockfiles.
	Family *key.Want
	// Skipped are fallback keys that mean nothing, with reasons.
	Skipped []string
}

// lockfileDigests are what the LOCKFILES_ variables of a job stand for, or why
// they stand for nothing.
type lockfileDigests struct {
	Digests map[string]string
	Errors  map[string]error
}

func (d lockfileDigests) of(name string) (string, error) {
	if digest := d.Digests[name]; digest != "" {
		return digest, nil
	}
	if err := d.Errors[name]; err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return "", fmt.Errorf("%s: %w", name, key.ErrNoLockfile)
}

// resolve puts the digests of lockfiles into the cache's keys.
func (p *plannedCache) resolve(digests lockfileDigests) (*resolvedCache, error) {
	if p.Problem != nil {
		return nil, p.Problem
	}
	vars := slices.Clone(p.input.Variables)
	for _, name := range p.Lockfiles {
		if digest, err := digests.of(name); err == nil {
			vars = append(vars, gitlab.Variable{Key: name, Value: digest, Raw: true})
		}
	}
	vars = vars.Resolve()
	expand := func(text string) (string, error) {
		for _, name := range lockfilesIn(p.input.Variables, []string{text}) {
			if _, err := digests.of(name); err != nil {
				return "", err
			}
		}
		return vars.Expand(text), nil
	}

	raw, err := expand(p.template)
	if err != nil {
		return nil, err
	}
	clean, err := key.Clean(raw)
	if err != nil {
		return nil, err
	}
	r := &resolvedCache{plannedCache: p, Key: clean, Immutable: p.immutable(clean, vars), Place: key.PathsOf(p.Paths, p.Untracked)}
	var wants []key.Want
	for _, fallback := range p.fallbacks {
		expanded, err := expand(fallback)
		if err == nil && expanded == "" {
			continue
		}
		var want key.Want
		if err == nil {
			want, err = key.Fallback(expanded)
		}
		if err != nil {
			r.Skipped = append(r.Skipped, fmt.Sprintf("fallback key %s: %v", withoutSuffix(fallback), err))
			continue
		}
		if !slices.Contains(wants, want) && (want.Prefix || want.Key != clean) {
			wants = append(wants, want)
		}
	}
	r.Candidates = key.Candidates(p.input.Scope, clean, r.Place, wants)
	r.Family = p.family(clean, digests)
	return r, nil
}

// family is the key up to the first digest of lockfiles, with the counter of
// cleared caches if there is one.
func (p *plannedCache) family(clean string, digests lockfileDigests) *key.Want {
	at, end := -1, 0
	for _, name := range p.Lockfiles {
		digest, err := digests.of(name)
		if err != nil {
			continue
		}
		if i := strings.Index(clean, digest); i > 0 && (at < 0 || i < at) {
			at, end = i, i+len(digest)
		}
	}
	if at < 0 {
		return nil
	}
	for _, rest := range []string{clean[end:], ""} {
		if want, err := key.Fallback(clean[:at] + "*" + rest); err == nil && want.Prefix {
			return &want
		}
	}
	return nil
}

// immutableVariable lets a job decide for its own keys.
const immutableVariable = "PODLANE_CACHE_IMMUTABLE"

// immutable: keys that hold a digest of files are written once, others if the
// setting says so; the job's variable decides for all of its keys.
func (p *plannedCache) immutable(clean string, vars gitlab.Variables) bool {
	switch vars.Get(immutableVariable) {
	case "true", "1":
		return true
	case "false", "0":
		return false
	}
	return p.input.Immutable || key.Immutable(clean, p.input.Job.GitInfo.Sha)
}

// lockfilesIn finds the LOCKFILES_ variables that texts depend on, directly or
// through a variable that names them.
func lockfilesIn(vars gitlab.Variables, texts []string) []string {
	mark := func(name string) string { return "\x00" + name + "\x00" }
	marked := slices.Clone(vars)
	var names []string
	for _, v := range vars {
		if strings.HasPrefix(v.Key, key.LockfilesPrefix) && !slices.Contains(names, v.Key) {
			names = append(names, v.Key)
			marked = append(marked, gitlab.Variable{Key: v.Key, Value: mark(v.Key), Raw: true})
		}
	}
	if len(names) == 0 {
		return nil
	}
	marked = marked.Resolve()
	var used []string
	for _, text := range texts {
		expanded := marked.Expand(text)
		for _, name := range names {
			if strings.Contains(expanded, mark(name)) && !slices.Contains(used, name) {
				used = append(used, name)
			}
		}
	}
	return used
}

// lockfileGlobs are the globs that a LOCKFILES_ variable holds, relative to the
// project.
func lockfileGlobs(in *cacheInput, name string) ([]string, error) {
	globs := key.Globs(in.Variables.Resolve().Get(name))
	for i, glob := range globs {
		inside, ok := insideProject(in.Project, glob)
		if !ok {
			return nil, fmt.Errorf("%s: %s is outside the project", name, glob)
		}
		globs[i] = inside
	}
	return globs, nil
}
