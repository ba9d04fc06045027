package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"time"

	"podlane/cacheclient/key"
	"podlane/cacheclient/store"
	"podlane/executor"
	"podlane/executor/pod"
	"podlane/executor/settings"
)

const (
	nameBucket  = "bucket"
	nameWriting = "writing caches"
	// doctorDir is where the doctor writes: below a scope's folder, where the
	// policies of scripts/vault-bootstrap let it delete as well.
	doctorDir = ".doctor/"
	content   = "podlane doctor was here\n"
)

// access is what the checks of the cluster and of the bucket hand on.
type access struct {
	client        *pod.Client
	reads, writes *store.Store
	// dir is where the job's caches lie.
	dir string
	// written are objects to take away, the first of them where it should be.
	written []written
}

type written struct {
	by   *store.Store
	name string
}

// cache finds out whether caches can be read and written, and by whom.
func (e *examination) cache() []check {
	if !e.s.Cache.Enabled() {
		return []check{{name: "caches", run: func(context.Context) finding { return fine("off: cache.bucket is not set") }}}
	}
	v := &e.s.Vault
	var read reading
	checks := []check{
		{name: nameBucket, needs: []string{"login for " + useRead}, run: func(ctx context.Context) finding { return e.readBucket(ctx, &read) }},
		clockOf("s3", nameBucket, &read),
		{name: nameWriting, needs: []string{nameBucket, "login for " + useWrite}, run: e.writeBucket},
		{name: "conditional writes", needs: []string{nameWriting}, run: e.writeAgain},
	}
	if v.Enabled() && v.CacheRead.Role != "" {
		checks = append(checks, check{name: "limits of reading caches", needs: []string{nameBucket}, run: func(ctx context.Context) finding {
			return e.mustNotWrite(ctx, e.reads, map[string]string{e.dir: "write caches"})
		}})
	}
	if v.Enabled() && v.CacheWrite.Role != "" {
		checks = append(checks, check{name: "limits of " + nameWriting, needs: []string{nameWriting}, run: func(ctx context.Context) finding {
			dirs, err := e.othersDirs()
			if err != nil {
				return failed(err, "")
			}
			return e.mustNotWrite(ctx, e.writes, dirs)
		}})
	}
	return append(checks, check{name: "expiry of caches", needs: []string{nameBucket}, run: func(ctx context.Context) finding {
		days, err := e.reads.ExpireDays(ctx, e.dir)
		if err != nil {
			return finding{} // few credentials may know
		}
		return judgeExpiry(days, &e.s.Cache)
	}})
}

func (e *examination) readBucket(ctx context.Context, read *reading) finding {
	role := e.s.Vault.CacheRead
	bucket, ends, err := e.try.Bucket(ctx, role)
	if err != nil {
		return failed(err, "see docs/vault-setup.md")
	}
	e.reads = bucket
	facts := e.try.Facts()
	if e.dir, err = e.try.CacheDir(role, facts.ProjectID, key.Scope(facts.Scope)); err != nil {
		return failed(err, "")
	}
	read.asked = time.Now()
	for _, err = range bucket.List(ctx, e.dir+doctorDir) {
		if err != nil {
			break
		}
	}
	read.answered, read.theirs = time.Now(), bucket.Date()
	if err != nil {
		f := failed(err, "")
		if errors.Is(err, store.ErrDenied) {
			f.hint = "cache.bucket, cache.prefix and --instance must be those that the project's roles were made for: scripts/vault-bootstrap --instance … --project " + facts.ProjectID
		}
		return f
	}
	return fine("%s lists %s%s", e.s.Cache.Bucket, e.dir, until(ends))
}

func until(ends time.Time) string {
	if ends.IsZero() {
		return ""
	}
	return ", with credentials until " + clock(ends)
}

func (e *examination) writeBucket(ctx context.Context) finding {
	bucket, ends, err := e.try.Bucket(ctx, e.s.Vault.CacheWrite)
	if err != nil {
		return failed(err, "see docs/vault-setup.md")
	}
	e.writes = bucket
	name, _, err := e.put(ctx, bucket, e.dir)
	if err != nil {
		return failed(err, "the role for writing must allow s3:PutObject below "+e.dir)
	}
	back, err := e.reads.ReadRange(ctx, store.Object{Name: name}, 0, int64(len(content)))
	if err != nil {
		return failed(err, "the role for reading must allow s3:GetObject below "+e.dir)
	}
	defer back.Close()
	if text, err := io.ReadAll(back); err != nil || string(text) != content {
		return fail("does something between here and the S3 server change what it passes on?", "%s does not read as it was written", name)
	}
	return fine("what is written in %s reads the same%s", e.dir, until(ends))
}

// put writes an object of the doctor's own.
func (e *examination) put(ctx context.Context, by *store.Store, dir string) (string, store.Outcome, error) {
	name := dir + doctorDir + rand.Text()
	outcome, err := by.Put(ctx, name, []byte(content), store.Meta{Created: time.Now()}, store.Once)
	if err == nil {
		e.written = append(e.written, written{by, name})
	}
	return name, outcome, err
}

// writeAgain finds out whether the first of two writes wins.
func (e *examination) writeAgain(ctx context.Context) finding {
	outcome, err := e.writes.Put(ctx, e.written[0].name, []byte(content), store.Meta{Created: time.Now()}, store.Once)
	switch {
	case err != nil:
		return failed(err, "")
	case outcome.Written || outcome.Warning != "":
		return warn("caches work, but of two jobs that write the same key at the same time the last one wins: look for an S3 server, or a proxy before it, that knows If-None-Match",
			"not known to the S3 server, or lost on the way")
	}
	return fine("the first of two writes wins")
}

// othersDirs are folders of caches that the job's credentials must not write to.
func (e *examination) othersDirs() (map[string]string, error) {
	role, facts := e.s.Vault.CacheWrite, e.try.Facts()
	dirs := map[string]string{}
	another, err := e.try.CacheDir(role, nobody, key.Scope(facts.Scope))
	if err != nil {
		return nil, err
	}
	dirs[another] = "write another project's caches"
	if facts.Scope != executor.ScopeProtected {
		protected, err := e.try.CacheDir(role, facts.ProjectID, key.Protected)
		if err != nil {
			return nil, err
		}
		dirs[protected] = "write caches of protected refs"
	}
	return dirs, nil
}

// mustNotWrite tries what must be refused, in folders by what that would be.
func (e *examination) mustNotWrite(ctx context.Context, by *store.Store, dirs map[string]string) finding {
	var loose []string
	for dir, what := range dirs {
		_, _, err := e.put(ctx, by, dir)
		switch {
		case err == nil:
			loose = append(loose, what+" in "+dir)
		case !errors.Is(err, store.ErrDenied):
			found, hint := explain(err)
			return warn(hint, "cannot tell: %s", found)
		}
	}
	if len(loose) > 0 {
		return fail("the engine's role is too loose, or the wrong one: scripts/vault-bootstrap makes narrow ones", "these credentials may also %s", strings.Join(loose, " and "))
	}
	return fine("none of %d things that they must not do", len(dirs))
}

func judgeExpiry(days int, c *settings.Cache) finding {
	switch {
	case days == 0 && c.ExpireDays > 0:
		return warn("scripts/bucket-bootstrap sets one", "the bucket has no lifecycle rule that deletes old caches; cache.expire_days is %d", c.ExpireDays)
	case days != c.ExpireDays:
		return warn("make them the same", "the bucket deletes caches after %d days, and cache.expire_days is %d", days, c.ExpireDays)
	case days == 0:
		return fine("never, as cache.expire_days says")
	}
	return fine("after %d days", days)
}

// tidyUp takes away all that the doctor has made.
func (e *examination) tidyUp() []check {
	var checks []check
	if e.s.Cache.Enabled() {
		checks = append(checks, check{name: "tidying up the bucket", run: func(ctx context.Context) finding {
			var left []string
			var last error
			for _, w := range e.written {
				if err := w.by.Delete(ctx, w.name); err != nil {
					left, last = append(left, w.name), err
				}
			}
			for _, bucket := range []*store.Store{e.reads, e.writes} {
				if bucket != nil {
					bucket.Close()
				}
			}
			if len(left) > 0 {
				found, _ := explain(last)
				return warn("the bucket's lifecycle deletes it in time; run scripts/vault-bootstrap --project again for roles that let the doctor do so", "%s is left: %s", strings.Join(left, ", "), found)
			}
			if len(e.written) == 0 {
				return finding{}
			}
			return fine("deleted what was written")
		}})
	}
	if e.s.Vault.Enabled() {
		checks = append(checks, check{name: "giving back to vault", run: func(ctx context.Context) finding {
			asked, err := e.try.GiveBack(ctx)
			switch {
			case err != nil:
				found, _ := explain(err)
				return warn("its tokens end by themselves", "not all is revoked: %s", found)
			case !asked:
				return finding{}
			}
			return fine("revoked what vault has issued, but for S3 credentials, which end by themselves")
		}})
	}
	return checks
}
