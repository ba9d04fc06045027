package gitlabsim

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// gitEnv keeps the host's configuration out of our repositories. path is the
// folder with git.
func gitEnv(path string) []string {
	return []string{
		"PATH=" + path, "HOME=/nonexistent",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Sidney Jones", "GIT_AUTHOR_EMAIL=sidney@example.com",
		"GIT_COMMITTER_NAME=Sidney Jones", "GIT_COMMITTER_EMAIL=sidney@example.com",
	}
}

// runGit runs git in dir and returns what it prints, without the last newline.
func runGit(ctx context.Context, dir string, stdin io.Reader, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Stdin, cmd.Env = dir, stdin, append(gitEnv(filepath.Dir(cmd.Path)), env...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(problems.String()))
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

func findHTTPBackend(ctx context.Context) (string, error) {
	dir, err := runGit(ctx, "", nil, nil, "--exec-path")
	if err != nil {
		return "", err
	}
	backend := filepath.Join(dir, "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		return "", fmt.Errorf("find git's HTTP server: %w", err)
	}
	return backend, nil
}

func (s *Server) repositories() string { return filepath.Join(s.dir, "repositories") }

// git serves fetches of any project to whoever has the token of a job that
// runs, under the user name gitlab-ci-token.
func (s *Server) git(w http.ResponseWriter, r *http.Request) {
	if !isFetch(r) && !isLFS(r) {
		notFound(w, r)
		return
	}
	user, password, ok := r.BasicAuth()
	if !ok || user != "gitlab-ci-token" || !s.mayFetch(password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="GitLab"`)
		http.Error(w, "HTTP Basic: Access denied", http.StatusUnauthorized)
		return
	}
	if isLFS(r) {
		s.lfs(w, r)
		return
	}
	r.Header.Del("Authorization")
	handler := cgi.Handler{
		Path: s.backend, Dir: s.dir,
		Env: append(gitEnv(filepath.Dir(s.backend)),
			"GIT_PROJECT_ROOT="+s.repositories(), "GIT_HTTP_EXPORT_ALL=1"),
	}
	handler.ServeHTTP(w, r)
}

// isFetch leaves git's dumb protocol and pushes out.
func isFetch(r *http.Request) bool {
	switch {
	case strings.HasSuffix(r.URL.Path, ".git/info/refs"):
		return r.Method == http.MethodGet && r.URL.Query().Get("service") == "git-upload-pack"
	case strings.HasSuffix(r.URL.Path, ".git/git-upload-pack"):
		return r.Method == http.MethodPost
	default:
		return false
	}
}

func (s *Server) mayFetch(token string) bool {
	job := s.jobByToken(token)
	return job != nil && job.alive()
}
