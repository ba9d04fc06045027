package executor

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"podlane/cacheclient/key"
	"podlane/executor/gitlab"
)

const (
	digestA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// line is a plan in one line, so that a table can show it whole.
func (r *resolvedCache) line() string {
	var b strings.Builder
	b.WriteString(r.Key)
	if r.Immutable {
		b.WriteString(" immutable")
	}
	for _, c := range r.Candidates[1:] {
		if c.Prefix || !c.Any { // key's own tests have those of other paths
			b.WriteString(" | " + string(c.Scope) + " " + c.String())
		}
	}
	if r.Family != nil {
		b.WriteString(" family " + r.Family.String())
	}
	return b.String()
}

func TestPlanKeys(t *testing.T) {
	vars := gitlab.Variables{
		{Key: "CI_COMMIT_REF_SLUG", Value: "main"},
		{Key: "LOCKFILES_NODE", Value: "frontend/package-lock.json"},
		{Key: "LOCKFILES_GO", Value: "go.sum $EXTRA"},
		{Key: "LOCKFILES_NONE", Value: "nothing"},
		{Key: "EXTRA", Value: "tools/go.sum"},
		{Key: "NODE_KEY", Value: "node-$LOCKFILES_NODE"},
		{Key: "RAW", Value: "$CI_COMMIT_REF_SLUG", Raw: true},
	}
	digests := lockfileDigests{
		Digests: map[string]string{"LOCKFILES_NODE": digestA, "LOCKFILES_GO": digestB},
		Errors:  map[string]error{"LOCKFILES_NONE": key.ErrNoLockfile},
	}
	tests := []struct {
		name  string
		scope key.Scope
		cache gitlab.Cache
		vars  gitlab.Variables
		want  string
	}{
		{name: "plain", cache: gitlab.Cache{Key: "default-non_protected"}, want: "default | protected default"},
		{name: "protected reads its own only", scope: key.Protected, cache: gitlab.Cache{Key: "default-protected"}, want: "default"},
		{name: "variables", cache: gitlab.Cache{Key: "$CI_COMMIT_REF_SLUG-x"}, want: "main-x | protected main-x"},
		{name: "raw variable", cache: gitlab.Cache{Key: "$RAW"}, want: "$CI_COMMIT_REF_SLUG | protected $CI_COMMIT_REF_SLUG"},
		{name: "no key", cache: gitlab.Cache{}, want: "test/feature | protected test/feature"},
		{name: "a key that is empty once expanded", cache: gitlab.Cache{Key: "$NOTHING"}, want: "test/feature | protected test/feature"},
		{name: "cleared caches keep their counter", cache: gitlab.Cache{Key: "deps-2-protected"}, want: "deps-2 | protected deps-2"},
		{name: "sanitised", cache: gitlab.Cache{Key: "../../x"}, want: "x | protected x"},
		{
			name: "key:files", cache: gitlab.Cache{Key: "node-" + digestB + "-non_protected"},
			want: "node-" + digestB + " immutable | protected node-" + digestB,
		},
		{
			name: "fallback keys in order", cache: gitlab.Cache{Key: "a-non_protected", FallbackKeys: []string{"b-non_protected", "", "$NOTHING", "c-*-non_protected"}},
			want: "a | protected a | unprotected b | protected b | unprotected c-* | protected c-*",
		},
		{
			name: "CACHE_FALLBACK_KEY comes last", cache: gitlab.Cache{Key: "a", FallbackKeys: []string{"b"}},
			vars: gitlab.Variables{{Key: "CACHE_FALLBACK_KEY", Value: "$CI_COMMIT_REF_SLUG-protected"}},
			want: "a | protected a | unprotected b | protected b | unprotected main | protected main",
		},
		{name: "a fallback that is the key itself", cache: gitlab.Cache{Key: "a", FallbackKeys: []string{"a", "b", "b"}}, want: "a | protected a | unprotected b | protected b"},
		{
			name: "lockfiles", cache: gitlab.Cache{Key: "node-$LOCKFILES_NODE-non_protected"},
			want: "node-" + digestA + " immutable | protected node-" + digestA + " family node-*",
		},
		{
			name: "lockfiles through a variable", cache: gitlab.Cache{Key: "$NODE_KEY"},
			want: "node-" + digestA + " immutable | protected node-" + digestA + " family node-*",
		},
		{
			name: "two lockfile variables and a counter", cache: gitlab.Cache{Key: "x-${LOCKFILES_NODE}-${LOCKFILES_GO}-3-protected"},
			want: "x-" + digestA + "-" + digestB + "-3 immutable | protected x-" + digestA + "-" + digestB + "-3 family x-*",
		},
		{
			name: "a counter stays with the family", cache: gitlab.Cache{Key: "x-${LOCKFILES_NODE}-3-protected"},
			want: "x-" + digestA + "-3 immutable | protected x-" + digestA + "-3 family x-*-3",
		},
		{
			name: "a digest that nothing stands before has no family", cache: gitlab.Cache{Key: "$LOCKFILES_NODE"},
			want: digestA + " immutable | protected " + digestA,
		},
		{
			name: "lockfiles in a fallback", cache: gitlab.Cache{Key: "a", FallbackKeys: []string{"node-$LOCKFILES_NODE"}},
			want: "a | protected a | unprotected node-" + digestA + " | protected node-" + digestA,
		},
		{name: "a fallback without lockfiles is left out", cache: gitlab.Cache{Key: "a", FallbackKeys: []string{"x-$LOCKFILES_NONE"}}, want: "a | protected a"},
		{
			name: "a job that wants its keys immutable", cache: gitlab.Cache{Key: "a"}, vars: gitlab.Variables{{Key: immutableVariable, Value: "true"}},
			want: "a immutable | protected a",
		},
		{
			name: "a job that does not", cache: gitlab.Cache{Key: "node-$LOCKFILES_NODE"}, vars: gitlab.Variables{{Key: immutableVariable, Value: "false"}},
			want: "node-" + digestA + " | protected node-" + digestA + " family node-*",
		},
		{name: "no lockfile", cache: gitlab.Cache{Key: "x-$LOCKFILES_NONE"}, want: "error: LOCKFILES_NONE: no lockfile matches"},
		{name: "nothing left of the key", cache: gitlab.Cache{Key: "..-protected"}, want: `error: "..-protected"`},
		{name: "policy", cache: gitlab.Cache{Key: "a", Policy: "push-pull"}, want: `error: policy "push-pull": expected pull, push or pull-push`},
		{name: "when", cache: gitlab.Cache{Key: "a", When: "never"}, want: `error: when "never": expected on_success, on_failure or always`},
		{name: "outside", cache: gitlab.Cache{Key: "a", Paths: []string{"/etc"}}, want: "error: path /etc is outside the project, /builds/g/p: a cache holds only what is in it"},
		{name: "above", cache: gitlab.Cache{Key: "a", Paths: []string{"x/../../y"}}, want: "error: path x/../../y is outside the project"},
		{name: "nothing to hold", cache: gitlab.Cache{Key: "a", Paths: []string{"$NOTHING"}}, want: "error: it has neither paths nor untracked"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.cache.Paths == nil {
				tt.cache.Paths = []string{"x"}
			}
			scope := tt.scope
			if scope == "" {
				scope = key.Unprotected
			}
			plan := planCaches(cacheInput{
				Job: &gitlab.Job{
					JobInfo: gitlab.JobInfo{Name: "test"},
					GitInfo: gitlab.GitInfo{Ref: "feature", Sha: "cccccccccccccccccccccccccccccccccccccccc"},
					Cache:   []gitlab.Cache{tt.cache},
				},
				Variables: append(vars[:len(vars):len(vars)], tt.vars...),
				Project:   "/builds/g/p", Scope: scope,
			})[0]
			got := ""
			if r, err := plan.resolve(digests); err != nil {
				got = "error: " + err.Error()
			} else {
				got = r.line()
			}
			if strings.HasPrefix(tt.want, "error: ") && strings.HasPrefix(got, tt.want) {
				return
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlanPolicyAndWhen(t *testing.T) {
	tests := []struct {
		policy, when                          string
		pull, push, afterSuccess, afterFailue bool
	}{
		{"", "", true, true, true, false},
		{"pull", "on_success", true, false, true, false},
		{"push", "on_failure", false, true, false, true},
		{"pull-push", "always", true, true, true, true},
		{"$POLICY", "", true, false, true, false},
	}
	for _, tt := range tests {
		p := planCaches(cacheInput{
			Job:       &gitlab.Job{Cache: []gitlab.Cache{{Key: "k", Policy: tt.policy, When: tt.when, Untracked: true}}},
			Variables: gitlab.Variables{{Key: "POLICY", Value: "$P"}, {Key: "P", Value: "pull"}},
			Project:   "/builds/g/p", Scope: key.Unprotected,
		})[0]
		if p.Problem != nil || p.Pull != tt.pull || p.Push != tt.push || p.wantedIn(true) != tt.afterSuccess || p.wantedIn(false) != tt.afterFailue {
			t.Errorf("policy %q, when %q: %+v", tt.policy, tt.when, p)
		}
	}
}

func TestPlanPaths(t *testing.T) {
	in := cacheInput{
		Job: &gitlab.Job{Cache: []gitlab.Cache{{Key: "k", Paths: []string{
			"node_modules/", "./a/../b", "$CI_PROJECT_DIR/.cache/go", "**/*.o", "$EMPTY", ".", "/builds/g/p",
		}}}},
		Variables: gitlab.Variables{
			{Key: "CI_PROJECT_DIR", Value: "/builds/g/p"},
			{Key: "LOCKFILES_X", Value: " a/**/go.sum\n$CI_PROJECT_DIR/b "},
			{Key: "LOCKFILES_OUT", Value: "../x"},
		},
		Project: "/builds/g/p", Scope: key.Unprotected,
	}
	p := planCaches(in)[0]
	want := []string{"node_modules", "b", ".cache/go", "**/*.o", ".", "."}
	if diff := cmp.Diff(want, p.Paths); diff != "" || p.Problem != nil {
		t.Errorf("%v, paths (-want +got):\n%s", p.Problem, diff)
	}
	globs, err := lockfileGlobs(&in, "LOCKFILES_X")
	if diff := cmp.Diff([]string{"a/**/go.sum", "b"}, globs); diff != "" || err != nil {
		t.Errorf("%v, globs (-want +got):\n%s", err, diff)
	}
	if _, err := lockfileGlobs(&in, "LOCKFILES_OUT"); err == nil {
		t.Error("a lockfile outside the project was accepted")
	}
}

func TestPlanKeepsGoingWithoutDigests(t *testing.T) {
	in := cacheInput{
		Job:       &gitlab.Job{Cache: []gitlab.Cache{{Key: "k-$LOCKFILES_X", Paths: []string{"x"}}}},
		Variables: gitlab.Variables{{Key: "LOCKFILES_X", Value: "a"}},
		Project:   "/builds/g/p", Scope: key.Unprotected,
	}
	if _, err := planCaches(in)[0].resolve(lockfileDigests{}); !errors.Is(err, key.ErrNoLockfile) {
		t.Errorf("got %v, want an error: a key without its digest would be the same for ever", err)
	}
}
