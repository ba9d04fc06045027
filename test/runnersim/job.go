package runnersim

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"podlane/test/runnersim/spec"
	"podlane/test/runnersim/trace"
)

// job is one job on its way through the runner (gitlab-runner common/build.go).
type job struct {
	cfg           Config
	payload       *spec.Job
	correlationID string
	trace         *trace.Job
	log           *jobLog
	runnerLog     runnerLog
	// hard ends when the runner gives up on everything.
	hard context.Context
	// slot and projectSlot tell jobs that run at the same time apart.
	slot, projectSlot int

	// Set by prepare; a second attempt overwrites them.
	hostname                      string
	rootDir, projectDir, cacheDir string

	mu   sync.Mutex
	vars spec.Variables // nil: to be made again
	set  *spec.Settings
}

// execute runs the whole job and returns its error. The job's own clock starts
// here; interrupt ends when the runner is told to stop.
func (j *job) execute(interrupt context.Context) error { //nolint:contextcheck // the job has a context of its own, which ends later: job.hard
	j.log.println("Running with", fmt.Sprintf("gitlab-runner %s (%s)", runnerVersion, runnerRevision))
	j.log.println(fmt.Sprintf("  on %s %s, system ID: %s", j.cfg.Name, shortToken(j.cfg.Token), systemID))
	if err := j.unsupported(); err != nil {
		return err
	}
	j.expandImages()

	ctx, cancel := context.WithTimeout(j.hard, j.payload.Timeout())
	defer cancel()
	j.trace.OnCancel(cancel)
	j.trace.OnAbort(cancel)

	if p := j.settings().Problems; len(p) > 0 {
		j.log.warning(strings.Join(p, "\n"))
	}
	var a *attempt
	err := j.log.section("prepare_executor", func() (err error) {
		j.log.println(ansiBoldCyan + `Preparing the "custom" executor` + ansiReset)
		a, err = j.prepare(ctx)
		return err
	})
	if err != nil {
		return err
	}
	defer a.cleanup() //nolint:contextcheck // as above
	return j.build(ctx, interrupt, a)
}

// unsupported refuses what would otherwise silently go wrong.
func (j *job) unsupported() error {
	switch {
	case len(j.payload.Secrets) > 0:
		return &buildError{inner: errors.New("the simulator resolves no secrets"), reason: configurationError}
	case len(j.payload.Run) > 0:
		return &buildError{inner: errors.New("the simulator runs no steps"), reason: configurationError}
	}
	return nil
}

func (j *job) expandImages() {
	vars := j.variables()
	for _, i := range j.images() {
		i.Name = vars.ExpandValue(i.Name)
		i.Alias = vars.ExpandValue(i.Alias)
	}
}

func (j *job) images() []*spec.Image {
	images := []*spec.Image{&j.payload.Image}
	for i := range j.payload.Services {
		images = append(images, &j.payload.Services[i])
	}
	return images
}

// prepareTries is how often a failed prepare is repeated (gitlab-runner
// common/consts.go, PreparationRetries).
const prepareTries = 3

// prepare tries until an executor is ready. Only a build failure and the job's
// own end stop it early. The pause also follows the last try.
func (j *job) prepare(ctx context.Context) (*attempt, error) {
	var err error
	for n := 1; n <= prepareTries; n++ {
		a := &attempt{
			job: j, number: n,
			buildsDir: j.cfg.BuildsDir, cacheRoot: j.cfg.CacheDir, shell: j.cfg.Shell,
		}
		if err = a.prepare(ctx); err == nil {
			return a, nil
		}
		a.cleanup() //nolint:contextcheck // as above
		var build *buildError
		switch {
		case errors.As(err, &build):
			return nil, err
		case ctx.Err() != nil:
			return nil, j.ended(ctx)
		}
		j.log.error("Preparation failed:", err)
		j.log.info("Will be retried in", j.cfg.PrepareRetryWait, "...")
		if !pause(ctx, j.cfg.PrepareRetryWait) {
			return nil, j.ended(ctx)
		}
	}
	return nil, err
}

func (j *job) ended(ctx context.Context) error {
	_, err := settle(j.payload, ctx.Err())
	return err
}

// waitForBuild is how long a job that was cancelled or has run out of time may
// take to end before it is cleaned up all the same (gitlab-runner
// common/consts.go, WaitForBuildFinishTimeout).
const waitForBuild = 5 * time.Minute

// build runs the stages until they end, the job's time is over, GitLab takes
// the job away, or the runner is told to stop.
func (j *job) build(ctx, interrupt context.Context, a *attempt) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	finished := make(chan error, 1)
	go func() { finished <- j.stages(running, a) }()

	var err error
	select {
	case <-ctx.Done():
		err = j.ended(ctx)
	case <-interrupt.Done():
		stop()
		err = &buildError{inner: errors.New("aborted: terminated"), reason: runnerInterrupted}
	case err = <-finished:
		if ctx.Err() != nil {
			return j.ended(ctx)
		}
		return err
	}
	select {
	case <-finished: //nolint:errcheck // why it ended is known already
	case <-time.After(waitForBuild):
		j.log.warning("Timed out waiting for the build to finish")
	}
	return err
}

// variables returns all variables, expanded, in the runner's order of
// precedence (gitlab-runner common/build.go, GetAllVariables).
func (j *job) variables() spec.Variables {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.vars == nil {
		flags, own := j.payload.Variables.FeatureFlags()
		j.vars = slices.Concat(flags, j.before(), own, j.after()).Expand()
	}
	return j.vars
}

func (j *job) refreshVariables() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.vars, j.set = nil, nil
}

// setStatus makes CI_JOB_STATUS say how the job has gone so far. Whoever reads
// the variables now keeps the old list.
func (j *job) setStatus(state string) {
	vars := slices.Clone(j.variables())
	vars.Overwrite(public("CI_JOB_STATUS", state))
	j.mu.Lock()
	defer j.mu.Unlock()
	j.vars = vars
}

func (j *job) settings() spec.Settings {
	vars := j.variables()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.set == nil {
		s := spec.NewSettings(j.payload, vars)
		j.set = &s
	}
	return *j.set
}

// before are the variables that a job's own can replace.
func (j *job) before() spec.Variables {
	var v spec.Variables
	if name := j.payload.Image.Name; name != "" {
		v = append(v, public("CI_JOB_IMAGE", name))
	}
	v = append(v, public("CI_RUNNER_SHORT_TOKEN", shortToken(j.cfg.Token)))
	for _, e := range j.cfg.Environment {
		if key, value, ok := strings.Cut(e, "="); ok {
			v = append(v, spec.Variable{Key: key, Value: value})
		}
	}
	return append(v,
		public("CI_BUILDS_DIR", j.rootDir),
		public("CI_PROJECT_DIR", j.projectDir),
		public("CI_CONCURRENT_ID", strconv.Itoa(j.slot)),
		public("CI_CONCURRENT_PROJECT_ID", strconv.Itoa(j.projectSlot)),
		public("CI_SERVER", "yes"),
		public("CI_JOB_STATUS", "running"),
		public("CI_JOB_TIMEOUT", strconv.Itoa(int(j.payload.Timeout().Seconds()))),
	)
}

// after are the variables that replace a job's own.
func (j *job) after() spec.Variables {
	return spec.Variables{
		public("CI_SHARED_ENVIRONMENT", "true"),
		public("CI_RUNNER_VERSION", runnerVersion),
		public("CI_RUNNER_REVISION", runnerRevision),
		public("CI_RUNNER_EXECUTABLE_ARCH", runtime.GOOS+"/"+runtime.GOARCH),
		public(spec.TempDirKey, j.projectDir+".tmp"),
	}
}

func public(key, value string) spec.Variable {
	return spec.Variable{Key: key, Value: value, Public: true}
}

var tokenStart = regexp.MustCompile(`^(glrt-(t[123]_)?|t[123]_|glrtr-|GR[0-9A-Fa-f]{7})`)

// shortToken is what tells runners apart in logs and paths (gitlab-runner
// helpers/shorten_token.go).
func shortToken(token string) string {
	token = tokenStart.ReplaceAllString(token, "")
	return token[:min(9, len(token))]
}

// pause waits and tells whether ctx still holds.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
