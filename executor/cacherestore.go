package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"podlane/cacheclient/key"
	"podlane/cacheclient/store"
	"podlane/internal/joblog"
	"podlane/podagent"
)

// restoreCaches is the stage restore_cache. Trouble with a cache never fails
// the job; only if half of one may be left in the checkout does the stage fail.
func (s *Stage) restoreCaches(ctx context.Context) (err error) {
	if !s.Settings.Cache.Enabled() {
		s.Log.Linef("caches are off: cache.bucket is not set in the settings of podlane")
		s.seen.Cache("off", 0)
		return nil
	}
	limit := s.cacheLimit()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, stageTimeError{limit})
	defer cancel()
	c, err := s.openCaching(ctx, s.Settings.Vault.CacheRead)
	if err != nil {
		s.Log.Linef("caches: error: %v; the job goes on without", err)
		s.seen.Cache("error", 0)
		return nil
	}
	defer func() { err = errors.Join(err, c.close(ctx)) }()
	// push, too: what a cache is saved under is decided before the script runs.
	c.lockfiles(ctx, func(*plannedCache) bool { return true })
	c.restoreAll(ctx)
	if err := s.storeCacheState(c.state); err != nil {
		s.Log.Warnf("%v", err)
	}
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return errors.New("stage restore_cache was cancelled")
	}
	return nil
}

// restoring is one cache on its way.
type restoring struct {
	*resolvedCache
	hit   store.Hit
	notes []string
	err   error
}

// restoreAll looks all caches up at once and restores them one after the other.
func (c *caching) restoreAll(ctx context.Context) {
	var wanted []*restoring
	for i := range c.plans {
		p := &c.plans[i]
		if p.Problem == nil && !p.Pull {
			c.Log.Linef("cache %s: not restored: its policy is push", shown(p.Name))
			continue
		}
		r, err := p.resolve(c.digests)
		if err != nil {
			c.failed(p.Name, err)
			continue
		}
		for _, skipped := range r.Skipped {
			c.Log.Linef("cache %s: %s: left out", shown(r.Key), skipped)
		}
		wanted = append(wanted, &restoring{resolvedCache: r})
	}
	done := c.seen.Phase(phaseLookup)
	var lookups sync.WaitGroup
	for _, w := range wanted {
		lookups.Go(func() { w.hit, w.notes, w.err = c.bucket.Find(ctx, c.space, w.Candidates, nil) })
	}
	lookups.Wait()
	done()
	for _, w := range wanted {
		c.restoreOne(ctx, w)
	}
}

func (c *caching) failed(name string, err error) {
	c.Log.Linef("cache %s: error: %v; the job goes on without", shown(name), err)
	c.seen.Cache("error", 0)
}

// maxUnusable is how many entries of one cache may turn out to be of no use
// before the search ends.
const maxUnusable = 5

// restoreOne restores what was found, or else what comes after it: an entry
// that turns out to be bad, or to hold none of the cache's paths, must not keep
// a good one away.
func (c *caching) restoreOne(ctx context.Context, w *restoring) {
	var bad, others, unusable []string
	candidates := w.Candidates
	for {
		switch {
		case errors.Is(w.err, store.ErrNotFound), len(unusable) == maxUnusable:
			c.missed(ctx, w, bad, others)
			return
		case w.err != nil:
			c.failed(w.Key, reason(ctx, w.err))
			return
		}
		began := time.Now()
		result, err := c.unpack(ctx, w)
		if err == nil {
			c.restored(w, result, time.Since(began), bad)
			return
		}
		var answer *podagent.CacheError
		if ctx.Err() != nil || !errors.As(err, &answer) || answer.Code == podagent.CacheNoMemory {
			c.failed(w.Key, reason(ctx, err))
			return
		}
		switch answer.Code {
		case podagent.CacheOther:
			others = append(others, cmp.Or(w.hit.Object.Meta.Paths, "something else"))
		case podagent.CacheDamaged:
			c.noteDamage(w.hit.Object)
			fallthrough
		default:
			bad = append(bad, fmt.Sprintf("%s: %v", shown(keyOf(w.hit)), err))
		}
		unusable = append(unusable, w.hit.Object.Name)
		candidates = candidates[slices.Index(candidates, w.hit.Candidate):]
		var notes []string
		w.hit, notes, w.err = c.bucket.Find(ctx, c.space, candidates, func(object string) bool { return slices.Contains(unusable, object) })
		w.notes = append(w.notes, notes...)
	}
}

// noteDamage lets the job's own entry take the place of one that is damaged.
func (c *caching) noteDamage(o store.Object) {
	if c.state.Damaged == nil {
		c.state.Damaged = map[string]string{}
	}
	c.state.Damaged[o.Name] = o.ETag
}

// reason says why a stage ended, where its own deadline or the runner ended it.
func reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// keyOf is the key that an entry was saved under.
func keyOf(hit store.Hit) string {
	if hit.Object.Meta.Key != "" {
		return hit.Object.Meta.Key
	}
	return hit.Candidate.String()
}

// unpack has the pod restore an entry.
func (c *caching) unpack(ctx context.Context, w *restoring) (*podagent.RestoreResult, error) {
	link, err := c.pod()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	reader := &cacheReader{bucket: c.bucket, object: w.hit.Object}
	done, err := link.do(ctx, cacheOrder{
		CacheOrder: podagent.CacheOrder{Restore: &podagent.RestoreOrder{
			Size: w.hit.Object.Size, Digest: w.hit.Object.Meta.Digest,
			Paths: w.Paths, Untracked: w.Untracked, Other: w.hit.OtherPaths(), Limits: c.limits(),
		}},
		sign:     reader.sign,
		progress: c.progress(w.Key),
	})
	if err == nil && done.Restore == nil {
		err = errors.New("podlane-helper gave no answer")
	}
	took := time.Since(began)
	if err != nil {
		c.seen.PhaseTook(phaseTransfer, began, took)
		return nil, err
	}
	// The two overlap: files are created while others are on their way.
	c.seen.PhaseTook(phaseTransfer, began, min(done.Restore.Transferred, took))
	c.seen.PhaseTook(phaseExtract, began.Add(done.Restore.Extracting), took-done.Restore.Extracting)
	return done.Restore, nil
}

// cacheReader signs reads of one object, pinned to its version.
type cacheReader struct {
	bucket *store.Store
	mu     sync.Mutex
	object store.Object
}

func (r *cacheReader) sign(ctx context.Context, ask podagent.CacheAsk) podagent.CacheAnswer {
	if ask.Read == nil {
		return podagent.CacheAnswer{Error: "a restore reads, and does not write"}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if ask.Read.Renew {
		if err := r.follow(ctx); err != nil {
			return podagent.CacheAnswer{Error: err.Error()}
		}
	}
	return answer(r.bucket.SignRead(ctx, r.object, signedLife))
}

// follow finds out why a request was refused. A refresh gives an object another
// version with the same contents: see store.Refresh.
func (r *cacheReader) follow(ctx context.Context) error {
	now, err := r.bucket.Head(ctx, r.object.Name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return errors.New("the cache was deleted while it was read")
	case err != nil:
		return err
	case now.ETag == r.object.ETag:
		return nil
	}
	refreshed := !now.Meta.Refreshed.IsZero() && now.Size == r.object.Size &&
		now.Meta.Created.Equal(r.object.Meta.Created) && now.Meta.Job == r.object.Meta.Job
	if !refreshed {
		return errors.New("the cache was written anew while it was read")
	}
	r.object = now
	return nil
}

// restored notes and tells about a hit.
func (c *caching) restored(w *restoring, tree *podagent.RestoreResult, took time.Duration, bad []string) {
	if c.state.Restored == nil {
		c.state.Restored = map[string]restoredCache{}
	}
	c.state.Restored[w.hit.Object.Name] = restoredCache{Number: w.Number, Fingerprint: tree.Fingerprint, Modified: w.hit.Object.Modified}
	scope := where(w.hit.Candidate, c.input.Scope)
	if w.hit.OtherPaths() {
		scope += ", saved with other paths"
	}
	what := contents(tree.CacheTree, "from", took)
	if len(tree.Notes) > 0 {
		what += "; " + joblog.Few(tree.Notes)
	}
	if w.hit.Candidate.Primary {
		c.Log.Linef("cache %s: hit%s: %s%s", shown(w.Key), scope, what, because(bad))
		c.seen.Cache("hit", tree.Size)
		return
	}
	changes := ""
	if diff := key.Changes(w.hit.Object.Meta.Lockfiles, c.marks(w.plannedCache)); len(diff) > 0 && len(w.hit.Object.Meta.Lockfiles) > 0 {
		changes = "; " + joblog.Few(diff)
	}
	c.Log.Linef("cache %s: fallback hit %s%s: %s%s%s", shown(w.Key), shown(keyOf(w.hit)), scope, what, changes, because(bad))
	c.seen.Cache("fallback", tree.Size)
}

// because tells of better entries that could not be used.
func because(bad []string) string {
	if len(bad) == 0 {
		return ""
	}
	return " (unusable: " + strings.Join(bad, "; ") + ")"
}

// missed tells about a miss, and why it may be one.
func (c *caching) missed(ctx context.Context, w *restoring, bad, others []string) {
	if len(bad) > 0 {
		c.Log.Linef("cache %s: error: %s; the job goes on without", shown(w.Key), strings.Join(bad, "; "))
		c.seen.Cache("error", 0)
		return
	}
	why := "there is no entry yet"
	switch {
	case len(others) > 0:
		why = "its entries hold none of the paths, but " + joblog.Few(others)
	case w.Family != nil:
		why = c.whatChanged(ctx, w)
	case !w.Candidates[len(w.Candidates)-1].Primary:
		why = "neither this key nor a fallback has an entry yet"
	}
	if len(w.notes) > 0 {
		why += "; " + joblog.Few(w.notes)
	}
	c.Log.Linef("cache %s: miss: %s", w.Key, why)
	c.seen.Cache("miss", 0)
}

// whatChanged compares the lockfiles with those of the newest entry of the same
// cache.
func (c *caching) whatChanged(ctx context.Context, w *restoring) string {
	var relatives []key.Candidate
	for _, scope := range c.input.Scope.Reads() {
		relatives = append(relatives, key.Candidate{Want: *w.Family, Scope: scope, Paths: w.Place, Any: true})
	}
	newest, _, err := c.bucket.Find(ctx, c.space, relatives, nil)
	if err != nil {
		return "there is no entry for " + w.Family.String() + " yet"
	}
	saved := fmt.Sprintf("since %s, saved %s", shown(keyOf(newest)), ago(newest.Object.Meta.Created, time.Now()))
	diff := key.Changes(newest.Object.Meta.Lockfiles, c.marks(w.plannedCache))
	if len(newest.Object.Meta.Lockfiles) == 0 || len(diff) == 0 {
		return "other lockfiles " + saved
	}
	return joblog.Few(diff) + " " + saved
}
