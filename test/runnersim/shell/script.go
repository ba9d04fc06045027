// Package shell writes the script of each stage of a job as gitlab-runner's
// bash shell does (gitlab-runner shells/bash.go and shells/abstract.go): for
// bash and sh, without a distributed cache, with feature flags at their
// defaults.
package shell

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"podlane/test/runnersim/spec"
)

// ErrSkip is returned for a stage with nothing to do: the driver isn't called.
var ErrSkip = errors.New("skip build stage")

// Runner is the program that scripts call for artifacts and caches
// (gitlab-runner executors/custom/custom.go:411).
const Runner = "gitlab-runner"

const (
	envFile       = "gitlab_runner_env"
	cacheEnvFile  = "gitlab_runner_cache_env"
	maskingFile   = "masking.db"
	gitTemplate   = "git-template"
	gitConfigFile = ".gitlab-runner.ext.conf"
	gitSeedFile   = ".glr.gconf"
	ownerFile     = ".gitlab-build-uid-gid"
)

// Build is everything a script is made from.
type Build struct {
	Job *spec.Job
	// Vars are all variables, expanded.
	Vars     spec.Variables
	Settings spec.Settings
	// Shell is bash or sh.
	Shell string
	// Hostname is what the driver calls itself, or "".
	Hostname string
	// RootDir is the driver's builds_dir, ProjectDir the checkout below it,
	// CacheDir the project's folder for cache archives.
	RootDir, ProjectDir, CacheDir string
	// ServerURL is the GitLab that the runner is registered with.
	ServerURL string
	// UserAgent is what git calls itself.
	UserAgent string
	// CorrelationID is the job request's.
	CorrelationID string
}

// TmpDir is the folder for file variables and git's external configuration.
func (b *Build) TmpDir() string { return b.ProjectDir + ".tmp" }

// Script returns the script of a stage, or ErrSkip.
func Script(stage string, b *Build) (string, error) {
	s := &script{Build: b, writer: writer{tmpDir: b.TmpDir()}}
	if err := s.write(stage); err != nil {
		return "", err
	}
	return s.finish(b.Shell, b.Settings.DebugTrace), nil
}

type script struct {
	*Build
	writer
}

func (s *script) write(stage string) error {
	switch stage {
	case "prepare_script":
		return s.prepare()
	case "get_sources":
		return s.getSources()
	case "clear_worktree":
		return s.clearWorktree()
	case "restore_cache":
		return s.restoreCache()
	case "download_artifacts":
		return s.downloadArtifacts()
	case "after_script":
		return s.afterScript()
	case "archive_cache":
		return s.archiveCache(true)
	case "archive_cache_on_failure":
		return s.archiveCache(false)
	case "upload_artifacts_on_success":
		return s.uploadArtifacts(true)
	case "upload_artifacts_on_failure":
		return s.uploadArtifacts(false)
	case "cleanup_file_variables":
		return s.cleanup()
	}
	return s.userScript(stage)
}

func (s *script) prepare() error {
	message := "Running on $(hostname)..."
	if s.Hostname != "" {
		message = "Running on $(hostname) via " + s.Hostname + "..."
	}
	s.line("echo " + strconv.Quote(message))
	s.removeFile(s.tmpFile(envFile))
	s.removeFile(s.tmpFile(maskingFile))
	return nil
}

// exports sets every variable; files says whether file variables are written
// again or only pointed at.
func (s *script) exports(files bool) {
	for _, v := range s.Vars {
		if v.File && !files {
			v = spec.Variable{Key: v.Key, Value: s.tmpFile(v.Key)}
		}
		s.variable(v)
	}
	env := s.tmpFile(envFile)
	s.variable(spec.Variable{Key: "GITLAB_ENV", Value: env})
	s.linef("mkdir -p %q", s.tmpDir)
	s.linef("touch %q", env)
	s.linef(`while read -r line; do export "$line"; done < %q`, env)
}

// inProject exports the variables and enters the checkout.
func (s *script) inProject() {
	s.exports(true)
	s.cd(s.ProjectDir)
}

// StepStage is the stage that runs a step (gitlab-runner common/build.go:1044).
func StepStage(name string) string { return "step_" + strings.ToLower(name) }

func (s *script) userScript(stage string) error {
	for _, step := range s.Job.Steps {
		if StepStage(step.Name) != stage {
			continue
		}
		s.inProject()
		lines := step.Script
		if step.Name == "release" {
			lines = make([]string, len(step.Script))
			for i, l := range step.Script {
				lines[i] = s.Vars.ExpandValue(l)
			}
		}
		s.userLines(lines)
		return nil
	}
	return ErrSkip
}

func (s *script) afterScript() error {
	for _, step := range s.Job.Steps {
		if step.Name != "after_script" || len(step.Script) == 0 {
			continue
		}
		s.inProject()
		s.notice("Running after script...")
		s.userLines(step.Script)
		return nil
	}
	return ErrSkip
}

// userLines shows and runs each of a job's lines. They aren't indented, so that
// here-documents in them stay as they are.
func (s *script) userLines(lines []string) {
	for _, l := range lines {
		l = strings.TrimSpace(l)
		first, _, multi := strings.Cut(l, "\n")
		switch {
		case l == "":
			s.line("echo")
		case multi:
			s.notice("$ %s # collapsed multi-line command", first)
		default:
			s.notice("$ %s", l)
		}
		s.line(l)
	}
}

// guard runs body only where the runner's own program is at hand
// (gitlab-runner shells/abstract.go, guardRunnerCommand).
func (s *script) guard(what string, body func()) {
	s.ifCommand(Runner, "--version")
	body()
	s.orElse()
	s.warning("Missing %s. %s is disabled.", Runner, what)
	s.end()
}

// chown gives folders to the user of the build container where an executor has
// noted down who that is.
func (s *script) chown(dirs ...string) {
	owner := s.RootDir + "/" + ownerFile
	s.ifPath("-e", owner)
	for _, d := range dirs {
		s.ifPath("-d", d)
		s.linef(`chown -R "$(stat -c '%%u:%%g' '%s')" '%s'`, owner, d)
		s.end()
	}
	s.end()
}

func (s *script) cleanup() error {
	s.exports(false)
	s.rejectCredentials()
	for _, f := range []string{envFile, maskingFile, gitConfigFile, gitSeedFile} {
		s.removeFile(s.tmpFile(f))
	}
	for _, v := range s.Vars {
		if v.File {
			s.removeFile(s.tmpFile(v.Key))
		}
	}
	s.gitCleanup()
	s.removeFile(path.Join(s.RootDir, ownerFile))
	return nil
}

// pathArgs are the arguments that name what is archived.
func pathArgs(paths []string, untracked bool) []string {
	var args []string
	for _, p := range paths {
		args = append(args, "--path", p)
	}
	if untracked {
		args = append(args, "--untracked")
	}
	return args
}

var errStrategy = errors.New("unknown GIT_STRATEGY")

func errPolicy(policy, key string) error {
	return fmt.Errorf("unknown cache policy %s for %s", policy, key)
}
