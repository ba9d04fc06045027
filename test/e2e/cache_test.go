package e2e

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/joblines"
	"podlane/test/stack/stackenv"
)

// s3Root may do everything in the stack's S3 server.
func s3Root(t *testing.T) *s3.Client {
	t.Helper()
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(shared.Stack.S3Address), UsePathStyle: true, Region: stackenv.S3Region,
		Credentials: credentials.NewStaticCredentialsProvider(stackenv.S3RootUser, s3RootPassword(t), ""),
	})
	_, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(stackenv.S3Bucket)})
	var owned *types.BucketAlreadyOwnedByYou
	if err != nil && !errors.As(err, &owned) {
		t.Fatal(err)
	}
	return client
}

func s3RootPassword(t *testing.T) string {
	t.Helper()
	password, err := os.ReadFile(shared.Stack.S3RootPasswordFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(password)
}

// cacheBed starts a bed with caches, without Vault: podlane has an access key
// in its environment. more is laid over the settings.
func cacheBed(t *testing.T, more bed.Settings) *bed.Bed {
	t.Helper()
	needsStack(t)
	s3Root(t)
	settings := bed.Settings{"cache": {
		"endpoint": quoted(shared.Stack.S3Address), "bucket": quoted(stackenv.S3Bucket), "path_style": "true", "prefix": quoted("t" + randomHex()),
	}}
	for table, values := range more {
		if settings[table] == nil {
			settings[table] = map[string]string{}
		}
		for key, value := range values {
			settings[table][key] = value
		}
	}
	environ := append(os.Environ(), "AWS_ACCESS_KEY_ID="+stackenv.S3RootUser, "AWS_SECRET_ACCESS_KEY="+s3RootPassword(t))
	b, err := bed.Start(t.Context(), bed.Options{Root: ".", Environ: environ, Concurrent: 6, Settings: settings, NoVault: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// The first job of a key misses and saves, the next one hits, and saves only
// what has changed.
func TestCacheMissThenHit(t *testing.T) {
	t.Parallel()
	b := cacheBed(t, nil)
	spec := gitlabsim.JobSpec{
		Project:   project(t, b, map[string]string{"package-lock.json": "1", "sub/package-lock.json": "2"}),
		Variables: []gitlabsim.Variable{{Key: "LOCKFILES_NODE", Value: "**/package-lock.json"}},
		Cache: []gitlabsim.Cache{
			{Key: "node-$LOCKFILES_NODE", Paths: []string{"deps"}},
			{Key: "build", Paths: []string{"out"}},
			{Key: "empty", Paths: []string{"nothing"}},
			{Key: "none-$LOCKFILES_NONE", Paths: []string{"deps"}},
		},
		Script: []string{"test ! -e deps; test ! -e out", "mkdir -p deps/sub out; echo one > deps/a; ln -s a deps/link; echo two > out/b"},
	}
	spec.Variables = append(spec.Variables, gitlabsim.Variable{Key: "LOCKFILES_NONE", Value: "Gemfile.lock"})
	o := runOn(t, b, spec)
	o.succeeded(t, "miss: there is no entry for node-* yet", "cache build: miss: there is no entry yet", "…: saved: 1 file, 4 B as ",
		"cache build: saved: 1 file, 4 B as ", "cache empty: not saved: it would be empty: nothing: no such files",
		"error: LOCKFILES_NONE: no lockfile matches Gemfile.lock; the job goes on without",
		"error: LOCKFILES_NONE: no lockfile matches Gemfile.lock; it is not saved")

	spec.Script = []string{"test $(cat deps/link) = one; test $(cat out/b) = two", "echo rewritten > package-lock.json"}
	o = runOn(t, b, spec)
	o.succeeded(t, "…: hit: 1 file, 4 B from ", "cache build: hit: 1 file, 4 B from ", "…: not saved: it is there already, saved ",
		"cache build: not saved: nothing has changed since it was restored", "cache empty: miss")

	// Another lockfile: a miss that says why.
	if _, err := spec.Project.Commit(t.Context(), map[string]string{"sub/package-lock.json": "3", "new/package-lock.json": "4"}); err != nil {
		t.Fatal(err)
	}
	spec.Script = []string{"test ! -e deps; echo three > out/b"}
	o = runOn(t, b, spec)
	o.succeeded(t, "miss: new/package-lock.json is new, sub/package-lock.json changed since node-", "cache build: saved: 1 file, 6 B")
}

// What GitLab's keywords mean, in as few jobs as it takes.
func TestCacheKeywords(t *testing.T) {
	t.Parallel()
	b := cacheBed(t, nil)
	p := project(t, b, map[string]string{"README": "x", ".gitignore": "ignored\n"})
	fill := "mkdir -p a; date +%N > a/f; cp a/f stray; echo ignored > ignored"
	o := runOn(t, b, gitlabsim.JobSpec{
		Project: p, Script: []string{fill}, Variables: []gitlabsim.Variable{{Key: "POLICY", Value: "pull"}, {Key: "WHERE", Value: "a"}},
		Cache: []gitlabsim.Cache{
			{Key: "gen-1", Paths: []string{"$WHERE/f"}},
			{Key: "pulled", Paths: []string{"a"}, Policy: "$POLICY"},
			{Key: "pushed", Paths: []string{"$CI_PROJECT_DIR/a/*"}, Policy: "push"},
			{Key: "loose", Untracked: true, Paths: []string{}},
			{Key: "after failure", Paths: []string{"a"}, When: "on_failure"},
			{Key: "outside", Paths: []string{"/etc"}},
		},
	})
	o.succeeded(t, "cache gen-1: saved: 1 file", "cache pulled: not saved: its policy is pull", "cache pushed: not restored: its policy is push",
		"cache pushed: saved: 1 file", "cache loose: saved: 3 files", "cache outside: error: path /etc is outside the project")
	o.doesNotLog(t, "cache after failure: saved")

	o = runOn(t, b, gitlabsim.JobSpec{
		Project: p, Script: []string{"cmp a/f stray; test -e ignored; rm -r a; mkdir a; echo failed > a/f; exit 3"},
		Variables: []gitlabsim.Variable{{Key: "CACHE_FALLBACK_KEY", Value: "pushed"}},
		Cache: []gitlabsim.Cache{
			{Key: "gen-2", Paths: []string{"a"}, FallbackKeys: []string{"gen-none", "gen-*"}},
			{Key: "loose", Untracked: true, Paths: []string{}, Policy: "pull"},
			{Key: "after failure", Paths: []string{"a"}, When: "on_failure"},
			{Key: "always", Paths: []string{"a"}, When: "always"},
		},
	})
	o.failed(t, 3, "cache gen-2: fallback hit gen-1, saved with other paths: 1 file", "cache loose: hit: 3 files", "cache after failure: fallback hit pushed",
		"cache after failure: saved: 1 file", "cache always: saved: 1 file")
	o.doesNotLog(t, "cache gen-2: saved")
}

// Caches of one key with different paths are different entries; where the job's
// own is not there yet, another one gives what it has of the paths.
func TestCacheOfOtherPaths(t *testing.T) {
	t.Parallel()
	b := cacheBed(t, nil)
	p := project(t, b, map[string]string{"lock": "1"})
	spec := gitlabsim.JobSpec{
		Project: p, Variables: []gitlabsim.Variable{{Key: "LOCKFILES_A", Value: "lock"}},
		Script: []string{"mkdir -p a/x b; echo ax > a/x/f; echo a > a/f; ln a/f b/link; echo b > b/f"},
		Cache:  []gitlabsim.Cache{{Key: "once-$LOCKFILES_A", Paths: []string{"b", "./a/"}}},
	}
	o := runOn(t, b, spec)
	o.succeeded(t, "…: saved: 4 files")

	// The same paths in another order are the same cache; others are not.
	spec.Cache = []gitlabsim.Cache{{Key: "once-$LOCKFILES_A", Paths: []string{"a", "b", "a"}, Policy: "pull"}}
	spec.Script = []string{"test $(cat a/x/f) = ax; test a/f -ef b/link"}
	runOn(t, b, spec).succeeded(t, "…: hit: 4 files")
	spec.Cache = []gitlabsim.Cache{
		{Key: "once-$LOCKFILES_A", Paths: []string{"a/x"}},
		{Key: "once-$LOCKFILES_A", Paths: []string{"b"}, Policy: "pull"},
		{Key: "once-$LOCKFILES_A", Paths: []string{"c"}},
	}
	spec.Script = []string{"test $(cat a/x/f) = ax; test ! -e a/f; test $(cat b/f) = b; test ! -e b/link; mkdir c; echo c > c/f"}
	o = runOn(t, b, spec)
	o.succeeded(t, "…: hit, saved with other paths: 1 file, 3 B from ", "…: hit, saved with other paths: 1 file, 2 B from ",
		"; without b/link, hard links whose files are none of the paths", ": miss: its entries hold none of the paths, but b, a")
	if n := strings.Count(o.trace, "…: saved: 1 file"); n != 2 {
		t.Errorf("%d caches were saved, want those of a/x and c\n%s", n, tail(o.trace))
	}
	spec.Script = []string{"test $(cat a/x/f) = ax; test $(cat c/f) = c"}
	o = runOn(t, b, spec)
	if n := strings.Count(o.trace, "…: not saved: it is there already"); n != 2 || strings.Count(o.trace, "…: hit: 1 file") != 2 {
		t.Errorf("%d caches were there already, want those of a/x and c\n%s", n, tail(o.trace))
	}
}

// Of two jobs that save the same immutable key at once one does, whichever comes
// first. Neither has found it when it began.
func TestCacheIsWrittenOnce(t *testing.T) {
	t.Parallel()
	b := cacheBed(t, nil)
	p := project(t, b, map[string]string{"lock": "1"})
	spec := gitlabsim.JobSpec{
		Project:   p,
		Variables: []gitlabsim.Variable{{Key: "LOCKFILES_A", Value: "lock"}},
		Cache:     []gitlabsim.Cache{{Key: "k-$LOCKFILES_A", Paths: []string{"deps"}}},
	}
	var jobs []*gitlabsim.Job
	var begun []*bed.Barrier
	for range 2 {
		barrier := b.Barrier()
		spec.Script = []string{barrier.Command, "mkdir deps; date +%N > deps/f"}
		jobs, begun = append(jobs, enqueue(t, b, spec)), append(begun, barrier)
	}
	for _, barrier := range begun {
		if err := barrier.Reached(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, barrier := range begun {
		barrier.Open()
	}
	var saved, not int
	for _, job := range jobs {
		o := finish(t, job)
		o.succeeded(t)
		saved += strings.Count(o.trace, "…: saved: 1 file")
		not += strings.Count(o.trace, "…: not saved: another job has just saved it") + strings.Count(o.trace, "…: not saved: it is there already")
	}
	if saved != 1 || not != 1 {
		t.Errorf("%d jobs saved and %d did not, want one each", saved, not)
	}
}

// An entry that is used outlives the bucket's lifecycle: it is written anew by
// the storage, once it is old enough, and by a job that may write it.
func TestCacheIsKept(t *testing.T) {
	t.Parallel()
	prefix := "t" + randomHex()
	b := cacheBed(t, bed.Settings{"cache": {"refresh_after": quoted("2s"), "prefix": quoted(prefix)}})
	spec := gitlabsim.JobSpec{
		Project: project(t, b, map[string]string{"lock": "1"}), Variables: []gitlabsim.Variable{{Key: "LOCKFILES_A", Value: "lock"}},
		Cache:  []gitlabsim.Cache{{Key: "once-$LOCKFILES_A", Paths: []string{"once"}}, {Key: "same", Paths: []string{"same"}}, {Key: "new", Paths: []string{"new"}}},
		Script: []string{"echo once > once; echo same > same; date +%N > new"},
	}
	runOn(t, b, spec).succeeded(t)
	client := s3Root(t)
	object := func(k string) (time.Time, map[string]string) {
		t.Helper()
		o, err := client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String(stackenv.S3Bucket), Key: aws.String(objectOf(t, client, prefix, k))})
		if err != nil {
			t.Fatal(err)
		}
		return *o.LastModified, o.Metadata
	}
	keys := []string{"once-", "same.", "new."}
	written := map[string]time.Time{}
	for _, k := range keys {
		written[k], _ = object(k)
		for time.Since(written[k]) < 3*time.Second {
			time.Sleep(100 * time.Millisecond)
		}
	}
	spec.Script = []string{"date +%N > new"}
	o := runOn(t, b, spec)
	o.succeeded(t, "…: hit: 1 file", "…: kept for longer: it was last written just now", "cache same: hit: 1 file", "cache same: kept for longer",
		"cache new: hit: 1 file", "cache new: saved: 1 file")
	o.doesNotLog(t, "cache new: kept for longer")
	for _, k := range keys {
		modified, meta := object(k)
		if !modified.After(written[k]) || (meta["refreshed"] == "") != (k == "new.") {
			t.Errorf("%s was written at %s and at %s, with %v", k, written[k], modified, meta)
		}
	}
	spec.Script = []string{"test $(cat once) = once; test $(cat same) = same"}
	runOn(t, b, spec).succeeded(t)
}

// treeScript makes everything that a cache has to bring back as it was, and
// listScript prints it: types, modes, times to the nanosecond, sizes, targets
// and what is linked to what.
const (
	treeScript = `mkdir -p t/empty t/ro/deep "t/sp ace" && cd t
printf 'run' > x && chmod 755 x && printf 's' > secret && chmod 600 secret && : > void
printf 'deep' > ro/deep/f && chmod 444 ro/deep/f
ln -s x rel && ln -s /nowhere/at/all abs && ln -s ../.. up && ln x hard && printf 'é' > "sp ace/$(printf 'n\303\251\377')"
touch -d '2001-02-03 04:05:06.123456789' x && touch -d '1999-01-01 00:00:00.000000001' empty
dd if=/dev/zero of=sparse bs=1 count=0 seek=3000000 2>/dev/null && dd if=/dev/urandom of=big bs=100000 count=50 2>/dev/null
chmod 555 ro/deep ro && cd ..`
	listScript = `find t -exec stat -c '%F %a %Y %y %s %h %n' {} + | grep -v ^directory | LC_ALL=C sort; find t -type d -exec stat -c '%F %a %y %n' {} + | LC_ALL=C sort
find t -type l -exec readlink {} + | LC_ALL=C sort; find t -type f -exec sha256sum {} + | LC_ALL=C sort; [ t/x -ef t/hard ] && echo linked`
)

func TestCacheBringsATreeBackAsItWas(t *testing.T) {
	t.Parallel()
	b := cacheBed(t, nil)
	spec := gitlabsim.JobSpec{
		Project: project(t, b, nil), Cache: []gitlabsim.Cache{{Key: "tree", Paths: []string{"t"}}},
		Script: []string{treeScript, "echo BEGIN; " + listScript + "; echo END"},
	}
	o := runOn(t, b, spec)
	o.succeeded(t, "cache tree: saved: ")
	before := between(t, o.trace)
	spec.Script = []string{"echo BEGIN; " + listScript + "; echo END"}
	o = runOn(t, b, spec)
	o.succeeded(t, "cache tree: hit", "cache tree: not saved: nothing has changed")
	if err := joblines.Same(between(t, o.trace), before, joblines.Own); err != nil {
		t.Errorf("restored otherwise than saved: %v", err)
	}
}

// between is what a script printed between the lines BEGIN and END.
func between(t *testing.T, trace string) string {
	t.Helper()
	_, rest, ok := strings.Cut(trace, "\nBEGIN\n")
	text, _, ok2 := strings.Cut(rest, "\nEND\n")
	if !ok || !ok2 || !strings.HasSuffix(text, "linked") {
		t.Fatal("the log lacks the tree")
	}
	return joblines.Without(text)
}
