package shell_test

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"podlane/test/runnersim/shell"
	"podlane/test/runnersim/spec"
)

var update = flag.Bool("update", false, "write the golden files again")

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"":            `''`,
		"plain-1.2/@": `plain-1.2/@`,
		"two words":   `$'two words'`,
		"it's":        `$'it\'s'`,
		"a\nb\tc":     `$'a\nb\tc'`,
		`back\slash`:  `$'back\\slash'`,
		"$HOME `x`":   "$'$HOME `x`'",
		"é\x01\x7f":   `$'\xc3\xa9\x01\x7f'`,
	} {
		if got := shell.Quote(in); got != want {
			t.Errorf("Quote(%q) = %s, want %s", in, got, want)
		}
	}
}

// full is a job that has something to do in every stage.
func full() *shell.Build {
	job := &spec.Job{
		ID: 42, Token: "glcbt-64_job",
		JobInfo: spec.JobInfo{Name: "build", ProjectID: 7},
		GitInfo: spec.GitInfo{
			RepoURL:  "http://gitlab-ci-token:glcbt-64_job@gitlab.test/group/shop.git",
			Ref:      "main",
			Sha:      "a1b2c3d4e5f60718293a4b5c6d7e8f9001122334",
			Refspecs: []string{"+refs/heads/main:refs/remotes/origin/main"},
			Depth:    20,
		},
		Steps: []spec.Step{
			{Name: "script", Script: []string{"make build", "", "for i in 1 2; do\n  echo $i\ndone"}},
			{Name: "release", Script: []string{"release-cli create --name $CI_COMMIT_TAG"}},
			{Name: "after_script", Script: []string{"echo done"}},
		},
		Cache: []spec.Cache{
			{Key: "go-$CI_COMMIT_REF_SLUG", Paths: []string{".go", "vendor"}, FallbackKeys: []string{"go-main"}},
			{Key: "out", Untracked: true, Policy: "pull", When: "always"},
		},
		Artifacts: []spec.Artifact{
			{Name: "bin", Paths: []string{"out/"}, Exclude: []string{"out/*.tmp"}, ExpireIn: "1 week", Format: "zip", Type: "archive"},
			{Name: "junit.xml", Paths: []string{"junit.xml"}, When: "always", Format: "gzip", Type: "junit"},
		},
		Dependencies: []spec.Dependency{{ID: 41, Token: "glcbt-64_dep", Name: "install"}, {ID: 40, Name: "empty"}},
		Hooks:        []spec.Hook{{Name: "pre_get_sources_script", Script: []string{"echo before"}}},
	}
	job.Dependencies[0].ArtifactsFile.Filename = "artifacts.zip"
	vars := spec.Variables{
		{Key: "CI_COMMIT_REF_SLUG", Value: "main"},
		{Key: "CI_COMMIT_TAG", Value: "v1"},
		{Key: "GIT_SUBMODULE_STRATEGY", Value: "recursive"},
		{Key: "GREETING", Value: "it's \"$5\"\nand more"},
		{Key: "KUBECONFIG", Value: "apiVersion: v1\n", File: true},
		{Key: spec.TempDirKey, Value: "/builds/group/shop.tmp"},
	}
	return &shell.Build{
		Job: job, Vars: vars, Settings: spec.NewSettings(job, vars),
		Shell: "bash", Hostname: "pod-42",
		RootDir: "/builds", ProjectDir: "/builds/group/shop", CacheDir: "/cache/group/shop",
		ServerURL: "http://gitlab.test", UserAgent: "gitlab-runner 19.3.0 linux/amd64",
		CorrelationID: "0123456789abcdef",
	}
}

// unquoted is the script's body as the shell will see it, which is what a
// person can read.
func unquoted(t *testing.T, script string) string {
	t.Helper()
	head, rest, ok := strings.Cut(script, "eval ")
	body, tail, ok2 := cutLast(rest, ") < /dev/null")
	if !ok || !ok2 {
		t.Fatalf("not the runner's frame:\n%s", script)
	}
	out, err := exec.Command("bash", "-c", "printf %s "+body).Output()
	if err != nil {
		t.Fatal(err)
	}
	return head + "eval <\n" + string(out) + ">" + ") < /dev/null" + tail
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func TestGolden(t *testing.T) {
	for _, stage := range []string{
		"prepare_script", "get_sources", "clear_worktree", "restore_cache", "download_artifacts",
		"step_script", "step_release", "after_script", "archive_cache", "archive_cache_on_failure",
		"upload_artifacts_on_success", "upload_artifacts_on_failure", "cleanup_file_variables",
	} {
		t.Run(stage, func(t *testing.T) {
			script, err := shell.Script(stage, full())
			if err != nil {
				t.Fatal(err)
			}
			compareGolden(t, filepath.Join("testdata", stage+".golden"), unquoted(t, script))
		})
	}
}

func TestGoldenFrame(t *testing.T) {
	script, err := shell.Script("after_script", full())
	if err != nil {
		t.Fatal(err)
	}
	compareGolden(t, filepath.Join("testdata", "frame.golden"), script)
}

func compareGolden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestSkip(t *testing.T) {
	b := full()
	b.Job = &spec.Job{Steps: []spec.Step{{Name: "after_script"}}, Cache: []spec.Cache{{Key: "no paths"}}}
	for _, stage := range []string{
		"restore_cache", "download_artifacts", "step_script", "after_script", "archive_cache",
		"archive_cache_on_failure", "upload_artifacts_on_success", "upload_artifacts_on_failure",
	} {
		if _, err := shell.Script(stage, b); !errors.Is(err, shell.ErrSkip) {
			t.Errorf("%s: error %v, want ErrSkip", stage, err)
		}
	}
}

func TestErrors(t *testing.T) {
	cases := map[string]struct {
		stage  string
		change func(*shell.Build)
		want   string
	}{
		"cache policy": {
			"restore_cache", func(b *shell.Build) { b.Job.Cache[0].Policy = "often" },
			"unknown cache policy often for go-main",
		},
		"submodules": {
			"get_sources", func(b *shell.Build) { b.Settings.SubmoduleStrategy = "invalid" },
			"unknown GIT_SUBMODULE_STRATEGY",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := full()
			c.change(b)
			if _, err := shell.Script(c.stage, b); err == nil || err.Error() != c.want {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

// shells runs a test with each shell that images have: bash, and busybox's ash
// where it is installed.
func shells(t *testing.T, f func(t *testing.T, name string, command []string)) {
	t.Run("bash", func(t *testing.T) { f(t, "bash", []string{"bash"}) })
	t.Run("ash", func(t *testing.T) {
		if _, err := exec.LookPath("busybox"); err != nil {
			t.Skip("no busybox")
		}
		f(t, "sh", []string{"busybox", "ash"})
	})
}

// awkward are values that quoting gets wrong first.
func awkward() map[string]string {
	return map[string]string{
		"NEWLINES":  "one\ntwo\n\nlast, no end",
		"QUOTES":    `'single' "double" ''' """ \' \"`,
		"DOLLARS":   "$HOME ${HOME} $(id) `id` $$ $5 !event",
		"BACKSLASH": `\n \\ \x41 \`,
		"UTF8":      "Grüße, 世界, \U0001F600 e\u0301",
		"CONTROL":   "\a\b\t\v\f\r\x01\x1b[31mred\x7f",
		"PATTERNS":  "* ? [a-z] ~ {a,b} #no comment; & | > < ( )",
		"SPACES":    "  leading, trailing  ",
		"EMPTY":     "",
		"LARGE":     strings.Repeat("0123456789 '\"$\n", 100<<10/15),
	}
}

func TestValuesSurvive(t *testing.T) {
	shells(t, func(t *testing.T, name string, command []string) {
		for key, value := range awkward() {
			for _, file := range []bool{false, true} {
				got := runStep(t, name, command, spec.Variable{Key: key, Value: value, File: file})
				if got != value {
					t.Errorf("%s (file: %v): %s", key, file, cmp.Diff(value, got))
				}
			}
		}
	})
}

// runStep runs a step that copies a variable into a file, and returns that.
func runStep(t *testing.T, name string, command []string, v spec.Variable) string {
	t.Helper()
	dir := t.TempDir()
	project := filepath.Join(dir, "group", "shop")
	if err := os.MkdirAll(project, 0o755); err != nil {
		t.Fatal(err)
	}
	line := `printf %s "$` + v.Key + `" > ../value`
	if v.File {
		line = `cp "$` + v.Key + `" ../value`
	}
	job := &spec.Job{Steps: []spec.Step{{Name: "script", Script: []string{line}}}}
	vars := spec.Variables{v, {Key: spec.TempDirKey, Value: project + ".tmp"}}
	script, err := shell.Script("step_script", &shell.Build{
		Job: job, Vars: vars, Settings: spec.NewSettings(job, vars), Shell: name,
		RootDir: dir, ProjectDir: project,
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin = strings.NewReader(script)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
	got, err := os.ReadFile(filepath.Join(dir, "group", "value"))
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// TestStep runs a whole step: what it prints, where it stops, what it hands on
// through GITLAB_ENV.
func TestStep(t *testing.T) {
	const green, reset = "\033[32;1m", "\033[0;m"
	cases := map[string]struct {
		script []string
		env    string // GITLAB_ENV before
		out    string
		code   int
	}{
		"lines": {
			script: []string{"echo one", "echo two"},
			out:    green + "$ echo one" + reset + "\none\n" + green + "$ echo two" + reset + "\ntwo\n",
		},
		"stops at the first error": {
			script: []string{"echo one", "(exit 37)", "echo never"},
			out:    green + "$ echo one" + reset + "\none\n" + green + "$ (exit 37)" + reset + "\n",
			code:   37,
		},
		"several lines in one": {
			script: []string{"if true; then\n  echo in\n  (exit 3)\n  echo never\nfi"},
			out:    green + "$ if true; then # collapsed multi-line command" + reset + "\nin\n",
			code:   3,
		},
		"a here-document": {
			script: []string{"cat <<END\n  $((1+1)) as is\nEND"},
			out:    green + "$ cat <<END # collapsed multi-line command" + reset + "\n  2 as is\n",
		},
		"no input": {
			script: []string{"cat"},
			out:    green + "$ cat" + reset + "\n",
		},
		"GITLAB_ENV": {
			script: []string{`echo "$HANDED"`},
			env:    "HANDED=on = and on\n",
			out:    green + `$ echo "$HANDED"` + reset + "\non = and on\n",
		},
	}
	shells(t, func(t *testing.T, name string, command []string) {
		for title, c := range cases {
			t.Run(title, func(t *testing.T) {
				b := full()
				dir := t.TempDir()
				b.Shell, b.RootDir, b.ProjectDir = name, dir, filepath.Join(dir, "p")
				b.Vars = spec.Variables{{Key: spec.TempDirKey, Value: b.TmpDir()}}
				b.Job.Steps = []spec.Step{{Name: "script", Script: c.script}}
				for _, d := range []string{b.ProjectDir, b.TmpDir()} {
					if err := os.Mkdir(d, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.WriteFile(filepath.Join(b.TmpDir(), "gitlab_runner_env"), []byte(c.env), 0o600); err != nil {
					t.Fatal(err)
				}
				script, err := shell.Script("step_script", b)
				if err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command(command[0], command[1:]...)
				cmd.Stdin = strings.NewReader(script)
				out, err := cmd.Output()
				if code := cmd.ProcessState.ExitCode(); code != c.code {
					t.Errorf("exit code %d (%v), want %d", code, err, c.code)
				}
				if diff := cmp.Diff(c.out, string(out)); diff != "" {
					t.Errorf("output (-want +got):\n%s", diff)
				}
			})
		}
	})
}
