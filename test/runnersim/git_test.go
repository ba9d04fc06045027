package runnersim_test

import (
	"net/http"
	"net/http/cgi"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// gitHost is a folder of bare repositories.
type gitHost struct{ dir string }

// serve makes the repositories part of a bed's GitLab, for whoever has the
// job's token.
func (g *gitHost) serve(t *testing.T, b *bed) {
	t.Helper()
	exe, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(exe)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + g.dir, "GIT_HTTP_EXPORT_ALL=1", "PATH=" + os.Getenv("PATH")},
	}
	b.mux.HandleFunc("/group/", func(w http.ResponseWriter, r *http.Request) {
		if user, token, _ := r.BasicAuth(); user != "gitlab-ci-token" || token != "glcbt-64_job" {
			w.Header().Set("WWW-Authenticate", "Basic realm=GitLab")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	})
}

func (g *gitHost) git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "protocol.file.allow=always"}, args...)...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + g.dir, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// repository makes group/<name>.git with as many commits and returns the last.
func (g *gitHost) repository(t *testing.T, name string, commits int, submodules ...string) string {
	t.Helper()
	work := t.TempDir()
	g.git(t, work, "init", "-q", "-b", "main")
	for _, s := range submodules {
		g.git(t, work, "submodule", "add", "-q", filepath.Join(g.dir, "group", s+".git"), s)
		g.git(t, work, "config", "-f", ".gitmodules", "submodule."+s+".url", "../"+s+".git")
	}
	for n := range commits {
		if err := os.WriteFile(filepath.Join(work, "file"), []byte(name+strings.Repeat("!", n)), 0o600); err != nil {
			t.Fatal(err)
		}
		g.git(t, work, "add", ".")
		g.git(t, work, "commit", "-q", "-m", "commit")
	}
	bare := filepath.Join(g.dir, "group", name+".git")
	g.git(t, work, "clone", "-q", "--bare", ".", bare)
	g.git(t, bare, "config", "uploadpack.allowAnySHA1InWant", "true")
	return g.git(t, work, "rev-parse", "HEAD")
}

// gitJob is a job of group/app.
func gitJob(t *testing.T, b *bed, sha string, depth int, script ...string) map[string]any {
	t.Helper()
	u, err := url.Parse(b.URL + "/group/app.git")
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("gitlab-ci-token", "glcbt-64_job")
	job := newJob(script...)
	job["git_info"] = map[string]any{
		"repo_url": u.String(), "ref": "main", "sha": sha, "depth": depth,
		"refspecs": []string{"+" + sha + ":refs/pipelines/1", "+refs/heads/main:refs/remotes/origin/main"},
	}
	job["variables"] = []map[string]any{}
	return job
}

func TestGit(t *testing.T) {
	g := &gitHost{t.TempDir()}
	g.repository(t, "deep", 1)
	g.repository(t, "lib", 1, "deep")
	sha := g.repository(t, "app", 5, "lib")

	cases := map[string]struct {
		depth  int
		vars   []map[string]any
		script []string
		want   []string
	}{
		"shallow clone": {
			depth:  2,
			script: []string{"cat file; echo", "echo commits: $(git rev-list --count HEAD)", "ls lib", "git fetch -q origin && echo fetched", `! grep -r glcbt .git`},
			want: []string{
				"Fetching changes with git depth set to 2...", "Created fresh repository.",
				"Checking out " + sha[:8] + " as detached HEAD (ref is main)...", "Skipping Git submodules setup",
				"\napp!!!!\n", "commits: 2\n", "fetched\n",
			},
		},
		"whole clone": {
			script: []string{"echo commits: $(git rev-list --count HEAD)"},
			want:   []string{"Fetching changes...", "commits: 5\n"},
		},
		"submodules": {
			depth:  1,
			vars:   []map[string]any{variable("GIT_SUBMODULE_STRATEGY", "normal")},
			script: []string{"cat lib/file; echo", "ls lib/deep", "cd lib", "git fetch -q origin && echo fetched in lib"},
			want:   []string{"Updating/initializing submodules with git depth set to 1...", "Updated submodules", "\nlib\n", "fetched in lib\n"},
		},
		"submodules, recursive": {
			depth:  1,
			vars:   []map[string]any{variable("GIT_SUBMODULE_STRATEGY", "recursive")},
			script: []string{"cat lib/deep/file; echo"},
			want:   []string{"Updating/initializing submodules recursively", "\ndeep\n"},
		},
		"no checkout": {
			vars:   []map[string]any{variable("GIT_CHECKOUT", "false")},
			script: []string{"ls -A"},
			want:   []string{"Skipping Git checkout", "\n.git\n"},
		},
		"empty": {
			vars:   []map[string]any{variable("GIT_STRATEGY", "empty")},
			script: []string{"echo files: $(ls -A | wc -l) in $CI_PROJECT_DIR"},
			want:   []string{"Skipping Git repository setup and creating an empty build directory", "files: 0 in /", "/builds/group/app-empty\n"},
		},
	}
	for _, shell := range []string{"bash", "sh"} {
		for name, c := range cases {
			t.Run(shell+", "+name, func(t *testing.T) {
				t.Parallel()
				b := newBed(t)
				g.serve(t, b)
				if shell == "sh" {
					b.cfg.Environ = append([]string{"DRIVER_SHELL=sh", "DRIVER_SH=busybox ash"}, b.cfg.Environ...)
				}
				job := gitJob(t, b, sha, c.depth, c.script...)
				addVariables(job, c.vars...)
				log, last := b.runOne(t, job)
				if last["state"] != "success" {
					t.Errorf("state = %v", last["state"])
				}
				for _, want := range c.want {
					if !strings.Contains(log, want) {
						t.Errorf("the log lacks %q", want)
					}
				}
				if strings.Contains(log, "glcbt-64_job") {
					t.Error("the log shows the job's token")
				}
				if t.Failed() {
					t.Log(readable(log))
				}
			})
		}
	}
}

// TestGitAgain has a second job find the first one's checkout.
func TestGitAgain(t *testing.T) {
	b, g := newBed(t), &gitHost{t.TempDir()}
	g.serve(t, b)
	sha := g.repository(t, "app", 2)
	b.start(t)
	for n, want := range []string{"Created fresh repository.", "left: no"} {
		job := gitJob(t, b, sha, 1, "echo left: $(test -e untracked && echo yes || echo no)", "touch untracked .git/index.lock", "cat file; echo")
		addVariables(job, variable("GIT_STRATEGY", "fetch"))
		id := int64(n + 1)
		b.add(id, job)
		log, last := b.wait(t, id)
		if last["state"] != "success" || !strings.Contains(log, want) || !strings.Contains(log, "\napp!\n") {
			t.Errorf("job %d ended as %v, log:\n%s", id, last["state"], readable(log))
		}
	}
}

// TestGitRetry has the first get_sources fail.
func TestGitRetry(t *testing.T) {
	b, g := newBed(t), &gitHost{t.TempDir()}
	g.serve(t, b)
	sha := g.repository(t, "app", 1)
	job := gitJob(t, b, sha, 1, "cat file; echo")
	addVariables(job, variable("GET_SOURCES_ATTEMPTS", "2"))
	b.write(t, "fail-get_sources", `rm "$DRIVER_DIR/fail-get_sources"; exit 1`)
	log, last := b.runOne(t, job)
	if last["state"] != "success" || !strings.Contains(log, "Deleting tracked and untracked files...") {
		t.Errorf("state %v, log:\n%s", last["state"], readable(log))
	}
	if want := "get_sources clear_worktree get_sources"; !strings.Contains(b.calls(t), want) {
		t.Errorf("calls = %s, want ... %s ...", b.calls(t), want)
	}
}
