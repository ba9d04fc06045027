package executor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"podlane/cacheclient/store"
	"podlane/cacheclient/transfer"
	"podlane/internal/joblog"
	"podlane/podagent"
)

// saveCaches is the stages archive_cache and archive_cache_on_failure. It never
// fails the job.
func (s *Stage) saveCaches(ctx context.Context, succeeded bool) error {
	if !s.Settings.Cache.Enabled() {
		s.Log.Linef("caches are off: cache.bucket is not set in the settings of podlane")
		s.seen.Cache("off", 0)
		return nil
	}
	limit := s.cacheLimit()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, stageTimeError{limit})
	defer cancel()
	c, err := s.openCaching(ctx, s.Settings.Vault.CacheWrite)
	if err != nil {
		s.Log.Linef("caches: error: %v; nothing is saved", err)
		s.seen.Cache("error", 0)
		return nil
	}
	// A save leaves nothing in the project.
	defer func() { _ = c.close(ctx) }()
	wanted := func(p *plannedCache) bool { return p.wantedIn(succeeded) && (p.Push || p.Problem != nil) }
	c.lockfiles(ctx, wanted)
	refreshes := c.newRefresher(ctx)
	for i := range c.plans {
		p := &c.plans[i]
		switch {
		case p.wantedIn(succeeded) && p.Problem == nil && !p.Push:
			c.Log.Linef("cache %s: not saved: its policy is pull", shown(p.Name))
		case wanted(p):
			c.saveOne(ctx, p)
		}
		refreshes.begin(p.Number)
	}
	refreshes.end()
	return nil
}

func (c *caching) saveOne(ctx context.Context, p *plannedCache) {
	r, err := p.resolve(c.digests)
	if err != nil {
		c.notSaved(p.Name, err)
		return
	}
	save := &saving{caching: c, resolvedCache: r, object: c.space.Object(c.input.Scope, r.Key, r.Place)}
	// Nothing is left of an upload that came to nothing, whatever ended it.
	defer save.abort(ctx)
	if err := save.run(ctx); err != nil {
		c.notSaved(r.Key, reason(ctx, err))
	}
}

func (c *caching) notSaved(name string, err error) {
	c.Log.Linef("cache %s: error: %v; it is not saved", shown(name), err)
	c.seen.Cache("error", 0)
}

// saving is one cache on its way.
type saving struct {
	*caching
	*resolvedCache
	object string
	mode   store.Mode

	mu     sync.Mutex
	upload *store.Upload
}

func (s *saving) run(ctx context.Context) error {
	there, err := s.bucket.Head(ctx, s.object)
	exists := err == nil
	s.mode = store.Replace
	if s.Immutable {
		s.mode = store.Once
	}
	switch {
	case exists && there.ETag == s.state.Damaged[s.object]:
		s.mode = store.Replace
	case exists && s.Immutable:
		s.Log.Linef("cache %s: not saved: it is there already, saved %s", shown(s.Key), ago(there.Meta.Created, time.Now()))
		s.seen.Cache("unchanged", 0)
		return nil
	case err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrDenied):
		return err
	}
	unless := ""
	if exists {
		unless = s.state.Restored[s.object].Fingerprint
	}
	began := time.Now()
	result, err := s.pack(ctx, unless)
	switch {
	case err != nil:
		return err
	case result.Empty:
		s.Log.Linef("cache %s: not saved: it would be empty: %s", shown(s.Key), s.whyEmpty(result.Notes))
		return nil
	case result.Unchanged:
		s.Log.Linef("cache %s: not saved: nothing has changed since it was restored", shown(s.Key))
		s.seen.Cache("unchanged", 0)
		return nil
	}
	return s.complete(ctx, result, began)
}

func (p *plannedCache) whyEmpty(notes []string) string {
	if len(notes) == 0 {
		return "there are no such files"
	}
	return joblog.Few(notes)
}

// pack has the pod pack the cache and send it, part by part.
func (s *saving) pack(ctx context.Context, unless string) (*podagent.SaveResult, error) {
	link, err := s.pod()
	if err != nil {
		return nil, err
	}
	defer s.seen.Phase(phaseTransfer)()
	done, err := link.do(ctx, cacheOrder{
		CacheOrder: podagent.CacheOrder{Save: &podagent.SaveOrder{Paths: s.Paths, Untracked: s.Untracked, Unless: unless, Limits: s.limits()}},
		sign:       s.sign,
		again:      s.abort,
		progress:   s.progress(s.Key),
	})
	if err == nil && done.Save == nil {
		err = errors.New("podlane-helper gave no answer")
	}
	return done.Save, err
}

// sign signs a part, of an upload that begins with the first.
func (s *saving) sign(ctx context.Context, ask podagent.CacheAsk) podagent.CacheAnswer {
	if ask.Part == nil {
		return podagent.CacheAnswer{Error: "a save writes, and does not read"}
	}
	upload, err := s.begun(ctx)
	if err != nil {
		return podagent.CacheAnswer{Error: err.Error()}
	}
	return answer(s.bucket.SignPart(ctx, upload, ask.Part.Number, ask.Part.Size, signedLife))
}

func (s *saving) begun(ctx context.Context) (store.Upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.upload != nil {
		return *s.upload, nil
	}
	upload, err := s.bucket.CreateUpload(ctx, s.object, store.Meta{
		Key: s.Key, Job: s.Job.ID, JobName: s.Job.JobInfo.Name, Ref: s.Job.GitInfo.Ref, Sha: s.Job.GitInfo.Sha,
		Created: time.Now(), Paths: s.what(), Lockfiles: s.marks(s.plannedCache),
	})
	if err == nil {
		s.upload = &upload
	}
	return upload, err
}

// what are the cache's paths for people.
func (p *plannedCache) what() string {
	paths := slices.Clone(p.Paths)
	if p.Untracked {
		paths = append(paths, "(untracked)")
	}
	return strings.Join(paths, ", ")
}

// abortLimit bounds the end of an upload, also after a cancellation.
const abortLimit = 15 * time.Second

// abort ends an upload that is under way.
func (s *saving) abort(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.upload == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortLimit)
	defer cancel()
	if err := s.bucket.Abort(ctx, *s.upload); err != nil {
		s.Log.Warnf("cache %s: the upload's parts stay until the bucket's lifecycle takes them: %v", shown(s.Key), err)
	}
	s.upload = nil
}

// complete makes the parts the cache's entry.
func (s *saving) complete(ctx context.Context, result *podagent.SaveResult, began time.Time) error {
	if s.upload == nil || len(result.Parts) == 0 {
		return errors.New("podlane-helper has sent no part")
	}
	parts := make([]transfer.Done, len(result.Parts))
	for i, p := range result.Parts {
		parts[i] = transfer.Done{Number: p.Number, ETag: p.ETag, Size: p.Size}
	}
	outcome, err := s.bucket.Complete(ctx, *s.upload, parts, s.mode)
	if err != nil {
		return err
	}
	s.upload = nil
	warning := ""
	if outcome.Warning != "" {
		warning = "; warning: " + outcome.Warning
	}
	if !outcome.Written {
		s.Log.Linef("cache %s: not saved: another job has just saved it%s", shown(s.Key), warning)
		s.seen.Cache("unchanged", 0)
		return nil
	}
	delete(s.state.Restored, s.object)
	s.Log.Linef("cache %s: saved: %s%s%s", shown(s.Key), contents(result.CacheTree, "as", time.Since(began)), notesOf(result), warning)
	s.seen.Cache("saved", result.Size)
	return nil
}

// Refreshes are for other jobs' sake. This one waits for them no longer than its
// own saves take, and refreshGrace: the next job tries again.
const refreshGrace = 5 * time.Second

// refresher has the server write anew what the job has restored, once it is old
// enough for the bucket's lifecycle. It works in this stage because only now
// there are credentials to write with.
type refresher struct {
	*caching
	age    time.Duration
	ctx    context.Context //nolint:containedctx // outlives each call
	cancel context.CancelFunc
	calls  sync.WaitGroup
}

func (c *caching) newRefresher(ctx context.Context) *refresher {
	r := &refresher{caching: c, age: c.Settings.Cache.RefreshAge()}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r
}

// begin refreshes what was restored for a cache of the job, which is not being
// saved any more.
func (r *refresher) begin(number int) {
	for name, restored := range r.state.Restored {
		if restored.Number != number || r.age <= 0 || time.Since(restored.Modified) < r.age || !strings.HasPrefix(name, r.space.Dir(r.input.Scope)) {
			continue
		}
		r.calls.Go(func() {
			object, err := r.bucket.Head(r.ctx, name)
			if err != nil {
				return
			}
			if done, err := r.bucket.Refresh(r.ctx, object, r.age); err == nil && done {
				r.Log.Linef("cache %s: kept for longer: it was last written %s", shown(object.Meta.Key), ago(object.Modified, time.Now()))
			}
		})
	}
}

// end waits for what is under way, for a moment.
func (r *refresher) end() {
	timer := time.AfterFunc(refreshGrace, r.cancel)
	defer timer.Stop()
	r.calls.Wait()
	r.cancel()
}
