package executor

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"podlane/cacheclient/key"
	"podlane/cacheclient/store"
	"podlane/executor/gitlab"
	"podlane/executor/settings"
	"podlane/internal/joblog"
	"podlane/podagent"
)

// caching is one cache stage: what restore_cache and archive_cache share.
type caching struct {
	*Stage
	facts  Facts
	bucket *store.Store
	space  key.Space
	input  cacheInput
	plans  []plannedCache
	state  cacheState
	// digests are known after lockfiles.
	digests lockfileDigests
	link    *cacheLink
}

// stageTimeError is the cause of a cache stage that ends by its own deadline.
type stageTimeError struct{ limit time.Duration }

func (e stageTimeError) Error() string {
	return fmt.Sprintf("not done after %s, which is all the time that a cache stage has", e.limit)
}

// openCaching plans the job's caches and prepares access to the bucket, without
// asking anybody anything yet. Its error is one line for the job log.
//
// role is Vault's: that of credentials to write with is used only once the
// job's script has ended.
func (s *Stage) openCaching(ctx context.Context, role settings.VaultRole) (*caching, error) {
	facts, err := s.cacheFacts(role)
	if err != nil {
		return nil, err
	}
	c := &caching{Stage: s, facts: facts}
	project, err := s.projectDir()
	if err != nil {
		return nil, err
	}
	c.input = cacheInput{
		Job: s.Job, Variables: s.cacheVariables(), Project: project,
		Scope: key.Scope(c.facts.Scope), Immutable: s.Settings.Cache.Immutable,
	}
	c.plans = planCaches(c.input)
	id, err := strconv.ParseInt(c.facts.ProjectID, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("project id %q: expected a number", c.facts.ProjectID)
	}
	if c.space, err = key.NewSpace(s.Settings.Cache.Prefix, key.Instance(c.facts.Instance), id); err != nil {
		return nil, err
	}
	if c.state, err = s.loadCacheState(); err != nil {
		s.Log.Warnf("%v", err)
	}
	c.bucket, err = s.openBucket(ctx, s.cacheSource(role))
	return c, err
}

// cacheLimit bounds the stage: the setting, or what the job asks for if that is
// less, in the runner's own variable for it, in minutes.
func (s *Stage) cacheLimit() time.Duration {
	limit := s.Settings.Cache.Timeout.D()
	if minutes, err := strconv.Atoi(s.Job.Variables.Get("CACHE_REQUEST_TIMEOUT")); err == nil && minutes > 0 {
		limit = min(limit, time.Duration(minutes)*time.Minute)
	}
	return limit
}

// cacheVariables are what keys and paths of caches may hold: the job's own
// variables and, below them, those that the runner adds. Whoever writes a job
// decides over all of them, and over keys and paths anyway; scope and place of
// a cache are made of nothing here.
func (s *Stage) cacheVariables() gitlab.Variables {
	vars := make(gitlab.Variables, 0, len(s.RunnerVariables)+len(s.Job.Variables))
	for _, v := range s.RunnerVariables {
		v.Raw = true // the runner has expanded them
		vars = append(vars, v)
	}
	return append(vars, s.Job.Variables...)
}

// projectDir is the checkout's folder in the pod: what the runner says it is,
// as long as that lies below builds_dir, or the place that the runner makes of
// the repository's address (gitlab-runner common/build.go, ProjectUniqueDir).
func (s *Stage) projectDir() (string, error) {
	builds := s.Settings.Job.BuildsDir
	dir := s.RunnerVariables.Get("CI_PROJECT_DIR")
	if dir == "" {
		u, err := url.Parse(s.Job.GitInfo.RepoURL)
		if err != nil {
			return "", errors.New("the repository's address can't be read")
		}
		dir = path.Join(builds, strings.TrimSuffix(u.Path, ".git"))
	}
	dir = path.Clean(dir)
	if !strings.HasPrefix(dir, builds+"/") {
		return "", fmt.Errorf("the project's folder is %s, expected one below job.builds_dir, %s", dir, builds)
	}
	return dir, nil
}

// pod returns the link to the pod, which is opened by the first order.
func (c *caching) pod() (*cacheLink, error) {
	if c.link != nil {
		return c.link, nil
	}
	client, err := c.connect()
	if err != nil {
		return nil, err
	}
	header := podagent.CacheHeader{Project: c.input.Project, AsBuildUser: true}
	if file := c.Settings.Cache.CAFile; file != "" {
		cas, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("cache.ca_file: %w", err)
		}
		header.CAs = string(cas)
	}
	c.link = c.newCacheLink(client, header)
	return c.link, nil
}

// close ends what the stage has opened. An error means that half a cache may
// lie in the project.
func (c *caching) close(ctx context.Context) error {
	if c.bucket != nil {
		c.bucket.Close()
	}
	if c.link == nil {
		return nil
	}
	return c.link.close(ctx)
}

// lockfiles finds out what the LOCKFILES_ variables of the caches that matter
// stand for: what an earlier stage has found, or else what is in the checkout.
func (c *caching) lockfiles(ctx context.Context, matters func(*plannedCache) bool) {
	c.digests = lockfileDigests{Digests: map[string]string{}, Errors: map[string]error{}}
	order := podagent.LockfilesOrder{Globs: map[string][]string{}}
	for i := range c.plans {
		if !matters(&c.plans[i]) || c.plans[i].Problem != nil {
			continue
		}
		for _, name := range c.plans[i].Lockfiles {
			if _, known := c.state.Lockfiles[name]; known {
				continue
			}
			globs, err := lockfileGlobs(&c.input, name)
			if err != nil {
				c.digests.Errors[name] = err
				continue
			}
			order.Globs[name] = globs
		}
	}
	if len(order.Globs) > 0 {
		c.readLockfiles(ctx, &order)
	}
	for name, sums := range c.state.Lockfiles {
		files, err := lockfilesOf(sums)
		if err == nil {
			c.digests.Digests[name], err = key.Digest(files)
		}
		if err != nil {
			if globs, _ := lockfileGlobs(&c.input, name); len(globs) > 0 && errors.Is(err, key.ErrNoLockfile) {
				err = fmt.Errorf("%w %s", err, joblog.Few(globs))
			}
			c.digests.Errors[name] = err
		}
	}
}

// readLockfiles has the pod read them, and notes what it finds.
func (c *caching) readLockfiles(ctx context.Context, order *podagent.LockfilesOrder) {
	link, err := c.pod()
	var done podagent.CacheDone
	if err == nil {
		done, err = link.do(ctx, cacheOrder{CacheOrder: podagent.CacheOrder{Lockfiles: order}})
	}
	if err == nil && done.Lockfiles == nil {
		err = errors.New("podlane-helper gave no answer")
	}
	if c.state.Lockfiles == nil {
		c.state.Lockfiles = map[string][]podagent.LockfileSum{}
	}
	for name := range order.Globs {
		if err != nil {
			c.digests.Errors[name] = fmt.Errorf("read lockfiles: %w", err)
			continue
		}
		c.state.Lockfiles[name] = done.Lockfiles.Files[name]
	}
	if err == nil && len(done.Lockfiles.Notes) > 0 {
		c.Log.Warnf("lockfiles: %s", joblog.Few(done.Lockfiles.Notes))
	}
}

func lockfilesOf(sums []podagent.LockfileSum) ([]key.Lockfile, error) {
	files := make([]key.Lockfile, len(sums))
	for i, sum := range sums {
		files[i].Path = sum.Path
		if n, err := hex.Decode(files[i].Sum[:], []byte(sum.Sum)); err != nil || n != len(files[i].Sum) {
			return nil, fmt.Errorf("%s: digest %q: expected a SHA-256", sum.Path, sum.Sum)
		}
	}
	return files, nil
}

// marks are the lockfiles that a cache's key was made from.
func (c *caching) marks(p *plannedCache) key.Marks {
	var all []key.Lockfile
	for _, name := range p.Lockfiles {
		if files, err := lockfilesOf(c.state.Lockfiles[name]); err == nil {
			all = append(all, files...)
		}
	}
	return key.MarksOf(all)
}

// limits are the settings' for one cache.
func (c *caching) limits() podagent.CacheLimits {
	return podagent.CacheLimits{Files: c.Settings.Cache.MaxFiles, Bytes: c.Settings.Cache.MaxBytes()}
}

// signedLife is how long presigned requests are good for, unless the
// credentials behind them end earlier. The pod asks again when one has ended.
const signedLife = 15 * time.Minute

// answer makes the answer to an ask.
func answer(signed store.Signed, err error) podagent.CacheAnswer {
	if err != nil {
		return podagent.CacheAnswer{Error: err.Error()}
	}
	return podagent.CacheAnswer{URL: signed.URL.Reveal(), Header: signed.Header}
}

// progress tells the job log when a cache takes long, and once why.
func (c *caching) progress(name string) func(podagent.CacheProgress) {
	const pause = 30 * time.Second
	said, noted := time.Now(), false
	return func(p podagent.CacheProgress) {
		switch {
		case p.Note != "" && !noted:
			noted = true
			c.Log.Linef("cache %s: %s", shown(name), p.Note)
		case p.Note == "" && time.Since(said) >= pause:
			said = time.Now()
			c.Log.Linef("cache %s: %s, %s so far", shown(name), files(int(p.Files)), sizeOf(p.Bytes))
		}
	}
}
