package shell

import (
	"errors"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"podlane/test/runnersim/spec"
)

// extConfigVar names the external git configuration for submodules.
const extConfigVar = "GLR_EXT_GIT_CONFIG_PATH"

func (s *script) getSources() error {
	s.exports(true)
	s.variable(spec.Variable{Key: "GIT_TERMINAL_PROMPT", Value: "0"})
	s.variable(spec.Variable{Key: "GCM_INTERACTIVE", Value: "Never"})
	s.sourceHook("pre_get_sources_script")
	if err := s.fetchAndCheckout(); err != nil {
		return err
	}
	if err := s.submodules(); err != nil {
		return err
	}
	s.sourceHook("post_get_sources_script")
	s.chown(s.RootDir)
	s.rejectCredentials()
	return nil
}

func (s *script) sourceHook(name string) {
	if s.Settings.GitStrategy != "none" && s.Settings.GitStrategy != "empty" {
		s.userLines(s.Job.Hook(name))
	}
}

func (s *script) fetchAndCheckout() error {
	smudge := s.Settings.LFSSkipSmudge
	if !smudge {
		s.variable(spec.Variable{Key: "GIT_LFS_SKIP_SMUDGE", Value: "1"})
	}
	if err := s.repository(); err != nil {
		return err
	}
	if !s.Settings.GitCheckout {
		s.notice("Skipping Git checkout")
		return nil
	}
	s.checkout()
	if !smudge {
		s.ifCommand("git", "lfs", "version")
		s.command("git", "lfs", "pull")
		s.line("echo")
		s.end()
	}
	return nil
}

func (s *script) repository() error {
	switch s.Settings.GitStrategy {
	case "clone", "fetch":
		s.gitCleanup()
		remote, err := s.externalGitConfig()
		if err != nil {
			return err
		}
		if s.Settings.GitStrategy == "clone" {
			s.removeDir(s.ProjectDir)
		}
		s.fetch(remote)
	case "none":
		s.notice("Skipping Git repository setup")
		s.mkdir(s.ProjectDir)
	case "empty":
		s.notice("Skipping Git repository setup and creating an empty build directory")
		s.removeDir(s.ProjectDir)
		s.mkdir(s.ProjectDir)
	default:
		return errStrategy
	}
	return nil
}

// gitCleanup removes stale locks and every configuration and hook that an
// earlier job could have left behind.
func (s *script) gitCleanup() {
	git := path.Join(s.ProjectDir, ".git")
	modules := path.Join(git, "modules")
	withModules := s.withSubmodules()
	for _, f := range []string{"index.lock", "shallow.lock", "HEAD.lock", "hooks/post-checkout", "config.lock"} {
		s.removeFile(path.Join(git, f))
		if withModules {
			s.removeFilesBelow(modules, path.Base(f))
		}
	}
	s.removeFilesBelow(path.Join(git, "refs"), "*.lock")
	if s.Settings.GitStrategy == "none" {
		return
	}
	for _, dir := range []string{s.tmpFile(gitTemplate), git} {
		s.removeFile(path.Join(dir, "config"))
		s.removeDir(path.Join(dir, "hooks"))
	}
	if withModules {
		s.removeFilesBelow(modules, "config")
		s.removeDirsBelow(modules, "hooks")
	}
}

func (s *script) withSubmodules() bool {
	return s.Settings.SubmoduleStrategy == "normal" || s.Settings.SubmoduleStrategy == "recursive"
}

// externalGitConfig keeps the job token out of the checkout: a file beside it,
// included by git's own configuration, replaces URLs without a token by ones
// that have it. It returns the repository's URL without token.
func (s *script) externalGitConfig() (string, error) {
	templateDir := path.Join(s.tmpDir, gitTemplate)
	template := path.Join(templateDir, "config")
	external := s.tmpFile(gitConfigFile)
	s.mkdir(templateDir)
	for _, kv := range [][2]string{
		{"init.defaultBranch", "none"},
		{"fetch.recurseSubmodules", "false"},
		{"credential.interactive", "never"},
		{"gc.autoDetach", "false"},
	} {
		s.command("git", "config", "-f", template, kv[0], kv[1])
	}
	s.removeFile(external)
	s.commandExpand("git", "config", "-f", external, "http.extraHeader", "X-Gitaly-Correlation-ID: "+s.CorrelationID)
	s.notice("Gitaly correlation ID: %s", s.CorrelationID)
	s.commandExpand("git", "config", "-f", external, "transfer.bundleURI", "true")
	remote, rewrites, err := s.rewrites()
	if err != nil {
		return "", err
	}
	for _, r := range rewrites {
		s.commandExpand("git", "config", "--file", external, "--replace-all",
			"url."+r.with+".insteadOf", r.instead, "^"+regexp.QuoteMeta(r.instead)+"$")
	}
	s.includeExternal(template, external)
	s.linef("export %s=%s", extConfigVar, expandable(external))
	return remote, nil
}

func (s *script) includeExternal(config, external string) {
	s.commandExpand("git", "config", "--file", config, "--replace-all",
		"include.path", external, regexp.QuoteMeta(gitConfigFile)+"$")
}

// rewrite is one insteadOf rule.
type rewrite struct{ with, instead string }

// rewrites gives the remote without token and the rules that put the token in:
// for the repository, for the GitLab instance, and for the host of the
// repository where that differs (gitlab-runner helpers/url/gitauth.go).
func (s *script) rewrites() (remote string, rules []rewrite, err error) {
	repo, err := url.Parse(s.Job.GitInfo.RepoURL)
	if err != nil {
		return "", nil, errors.New("repository URL can't be read")
	}
	remote = withoutUser(*repo)
	if remote != repo.String() {
		rules = append(rules, rewrite{repo.String(), remote})
	}
	for i, base := range []string{s.ServerURL, withoutUser(url.URL{Scheme: repo.Scheme, Host: repo.Host})} {
		u, err := url.Parse(base)
		if err != nil {
			return "", nil, errors.New("invalid URL")
		}
		if u.Scheme != "http" && u.Scheme != "https" {
			continue
		}
		authed := s.withToken(*u)
		rules = append(rules, rewrite{authed, trimSlash(withoutUser(*u))})
		if i == 0 {
			rules = append(rules, s.sshRewrites(authed)...)
		}
	}
	return remote, unique(rules), nil
}

func (s *script) sshRewrites(base string) []rewrite {
	if !s.Settings.SubmoduleForceHTTPS {
		return nil
	}
	host := s.Vars.Value("CI_SERVER_SHELL_SSH_HOST")
	if host == "" {
		host = s.Vars.Value("CI_SERVER_HOST")
	}
	if port := s.Vars.Value("CI_SERVER_SHELL_SSH_PORT"); port != "" && port != "22" {
		return []rewrite{{base, "ssh://git@" + host + ":" + port}}
	}
	return []rewrite{{base + "/", "git@" + host + ":"}, {base, "ssh://git@" + host}}
}

func (s *script) withToken(u url.URL) string {
	u.User = url.UserPassword("gitlab-ci-token", s.Job.Token)
	return trimSlash(u.String())
}

func withoutUser(u url.URL) string {
	u.User = nil
	return u.String()
}

func trimSlash(s string) string { return strings.TrimRight(s, "/") }

func unique(rules []rewrite) []rewrite {
	var out []rewrite
	for _, r := range rules {
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out
}

func (s *script) fetch(remote string) {
	depth := s.Job.GitInfo.Depth
	if depth > 0 {
		s.notice("Fetching changes with git depth set to %d...", depth)
	} else {
		s.notice("Fetching changes...")
	}
	init := []string{"init", s.ProjectDir, "--template", path.Join(s.tmpDir, gitTemplate)}
	if f := s.Job.GitInfo.RepoObjectFormat; f != "" && f != "sha1" {
		init = append(init, "--object-format", f)
	}
	s.command("git", init...)
	s.cd(s.ProjectDir)
	s.ifCommand("git", "remote", "add", "origin", remote)
	s.notice("Created fresh repository.")
	s.orElse()
	s.command("git", "remote", "set-url", "origin", remote)
	s.includeExternal(".git/config", "$"+extConfigVar)
	s.end()

	args := []string{"-c", "http.userAgent=" + s.UserAgent, "fetch", "origin", "--no-recurse-submodules"}
	args = append(args, s.Job.GitInfo.Refspecs...)
	if depth > 0 {
		args = append(args, "--depth", strconv.Itoa(depth))
		s.command("git", append(args, s.Settings.GitFetchFlags...)...)
		return
	}
	args = append(args, s.Settings.GitFetchFlags...)
	s.ifPath("-e", ".git/shallow")
	s.command("git", append(slices.Clone(args), "--unshallow")...)
	s.orElse()
	s.command("git", args...)
	s.end()
}

func (s *script) checkout() {
	sha := s.Job.GitInfo.Sha
	s.notice("Checking out %s as detached HEAD (ref is %s)...", sha[:min(8, len(sha))], s.Job.GitInfo.Ref)
	s.command("git", "-c", "submodule.recurse=false", "checkout", "-f", "-q", sha)
	if flags := s.Settings.GitCleanFlags; len(flags) > 0 {
		s.command("git", append([]string{"clean"}, flags...)...)
	}
}

func (s *script) submodules() error {
	switch s.Settings.SubmoduleStrategy {
	case "none":
		s.notice("Skipping Git submodules setup")
		return nil
	case "normal", "recursive":
		if slices.Contains(s.Settings.SubmodulePaths, ":(exclude)") {
			return errors.New(`GIT_SUBMODULE_PATHS: invalid submodule pathspec ":(exclude)"`)
		}
		s.updateSubmodules(s.Settings.SubmoduleStrategy == "recursive")
		return nil
	}
	return errors.New("unknown GIT_SUBMODULE_STRATEGY")
}

func (s *script) updateSubmodules(recursive bool) {
	cmd := s.submoduleCommands(recursive)
	s.submoduleNotice(recursive)
	s.command("git", "submodule", "init")
	s.command("git", cmd.sync...)
	s.command("git", cmd.each(cmd.clean...)...)
	s.command("git", cmd.each("git", "reset", "--hard")...)
	s.ifOutput(expandable, "git", withExternal(cmd.update)...)
	s.notice("Updated submodules")
	s.command("git", cmd.sync...)
	s.orElse()
	s.warning("Updating submodules failed. Retrying...")
	if slices.ContainsFunc(s.Settings.SubmoduleUpdateFlags, func(f string) bool { return strings.EqualFold(f, "--remote") }) {
		s.commandExpand("git", withExternal(cmd.each("git", "fetch", "origin", "+refs/heads/*:refs/remotes/origin/*"))...)
	}
	s.command("git", cmd.sync...)
	s.commandExpand("git", withExternal(cmd.update)...)
	s.command("git", cmd.each("git", "reset", "--hard")...)
	s.end()
	s.command("git", cmd.each(cmd.clean...)...)
	s.notice("Configuring submodules to use parent git credentials...")
	s.commandExpand("git", "submodule", "foreach", "--recursive",
		"git", "config", "--replace-all", "include.path", "$"+extConfigVar)
	if !s.Settings.LFSSkipSmudge {
		s.ifCommand("git", "lfs", "version")
		s.notice("Pulling LFS files...")
		s.commandExpand("git", withExternal(cmd.each("git", "lfs", "pull"))...)
		s.end()
	}
}

// submoduleCommands are the arguments to git that updateSubmodules repeats.
type submoduleCommands struct {
	sync, update, foreach, clean []string
}

func (c submoduleCommands) each(command ...string) []string {
	return slices.Concat(c.foreach, command)
}

func (s *script) submoduleCommands(recursive bool) submoduleCommands {
	var recurse, depth, paths []string
	if recursive {
		recurse = []string{"--recursive"}
	}
	if d := s.Settings.SubmoduleDepth; d > 0 {
		depth = []string{"--depth", strconv.Itoa(d)}
	}
	if p := s.Settings.SubmodulePaths; len(p) > 0 {
		paths = append([]string{"--"}, p...)
	}
	clean := s.Settings.GitCleanFlags
	if len(clean) == 0 {
		clean = []string{"-ffdx"}
	}
	return submoduleCommands{
		sync:    slices.Concat([]string{"submodule", "sync"}, recurse, paths),
		update:  slices.Concat([]string{"submodule", "update", "--init"}, recurse, depth, s.Settings.SubmoduleUpdateFlags, paths),
		foreach: slices.Concat([]string{"submodule", "foreach"}, recurse),
		clean:   slices.Concat([]string{"git", "clean"}, clean),
	}
}

func (s *script) submoduleNotice(recursive bool) {
	text := "Updating/initializing submodules"
	if recursive {
		text += " recursively"
	}
	if d := s.Settings.SubmoduleDepth; d > 0 {
		text += " with git depth set to " + strconv.Itoa(d)
	}
	s.notice("%s...", text)
}

// withExternal makes submodules use the external configuration too.
func withExternal(args []string) []string {
	return append([]string{"-c", "include.path=$" + extConfigVar}, args...)
}

// rejectCredentials makes a credential helper of the user's forget the job
// token. It never fails a stage.
func (s *script) rejectCredentials() {
	repo, err := url.Parse(s.Job.GitInfo.RepoURL)
	if err != nil || repo.Host == "" || !slices.Contains([]string{"http", "https", "ssh"}, repo.Scheme) {
		return
	}
	text := "url=" + withoutUser(url.URL{Scheme: repo.Scheme, Host: repo.Host}) + "\nusername=gitlab-ci-token"
	s.line(words(Quote, "echo", []string{text}) + " | " +
		words(Quote, "git", []string{"credential", "reject"}) + " || true")
}

func (s *script) clearWorktree() error {
	s.notice("Deleting tracked and untracked files...")
	s.ifPath("-d", s.ProjectDir)
	s.cd(s.ProjectDir)
	s.command("git", "rm", "-rf", "--ignore-unmatch", "--quiet", ".")
	s.command("git", "clean", "-ffdx", "-q")
	s.end()
	return nil
}
