package gitlabsim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// ProjectSpec describes a project.
type ProjectSpec struct {
	// Path is the full path, with its groups: group/subgroup/app.
	Path string
	// DefaultBranch is main unless set.
	DefaultBranch string
	// ProtectedRefs are names of protected branches and tags, or patterns with
	// *. Nil: the default branch.
	ProtectedRefs []string
	// Variables of the project's settings, in every job of it.
	Variables []Variable
	// ProtectedVariables are those that only jobs of protected refs get.
	ProtectedVariables []Variable
}

// Project is a project with a git repository.
type Project struct {
	ProjectSpec
	ID          int64
	NamespaceID int64
	server      *Server

	mu            sync.Mutex // one commit at a time
	mergeRequests int64
}

// MergeRequest of a project.
type MergeRequest struct {
	ID, IID      int64
	Title        string
	SourceBranch string
	TargetBranch string
	SourceSHA    string
	TargetSHA    string
}

// CommitSpec is a commit to be made.
type CommitSpec struct {
	// Branch to commit to; it is created from the default branch if there is
	// none. Empty: the default branch.
	Branch string
	// Message is "Change" unless set.
	Message string
	// Files by path, laid over the branch's tree. Those whose contents start
	// with #! become executable.
	Files map[string]string
	// Dir replaces the whole tree, before Files are laid over it. What its
	// .gitignore names is left out.
	Dir string
	// Submodules by path: the commit each one stands at. The .gitmodules file
	// is among Files.
	Submodules map[string]string
}

// AddProject makes a project with an empty repository.
func (s *Server) AddProject(ctx context.Context, spec ProjectSpec) (*Project, error) {
	if !strings.Contains(spec.Path, "/") || path.Clean("/"+spec.Path) != "/"+spec.Path {
		return nil, fmt.Errorf("project path %q: want group/project", spec.Path)
	}
	if spec.DefaultBranch == "" {
		spec.DefaultBranch = "main"
	}
	if spec.ProtectedRefs == nil {
		spec.ProtectedRefs = []string{spec.DefaultBranch}
	}
	p, err := s.registerProject(spec)
	if err != nil {
		return nil, err
	}
	if _, err := runGit(ctx, s.dir, nil, nil, "init", "-q", "--bare", "-b", spec.DefaultBranch, p.repo()); err != nil {
		return nil, fmt.Errorf("make repository of %s: %w", spec.Path, err)
	}
	// A pipeline's commit may be on no branch any more.
	if _, err := runGit(ctx, p.repo(), nil, nil, "config", "uploadpack.allowAnySHA1InWant", "true"); err != nil {
		return nil, fmt.Errorf("configure repository of %s: %w", spec.Path, err)
	}
	return p, nil
}

func (s *Server) registerProject(spec ProjectSpec) (*Project, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.projects[spec.Path] != nil {
		return nil, fmt.Errorf("project %s: there is one already", spec.Path)
	}
	p := &Project{
		ProjectSpec: spec, ID: int64(len(s.projects) + 1),
		NamespaceID: s.namespaceID(path.Dir(spec.Path)), server: s,
	}
	s.projects[spec.Path] = p
	return p, nil
}

// namespaceID numbers groups as they come. The server is locked.
func (s *Server) namespaceID(namespace string) int64 {
	if s.namespaces[namespace] == 0 {
		s.namespaces[namespace] = int64(len(s.namespaces) + 1)
	}
	return s.namespaces[namespace]
}

func (s *Server) rootNamespaceID(p *Project) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	root, _, _ := strings.Cut(p.Path, "/")
	return s.namespaceID(root)
}

func (p *Project) repo() string {
	return filepath.Join(p.server.repositories(), filepath.FromSlash(p.Path)+".git")
}

// URL is the project's page.
func (p *Project) URL() string { return p.server.url + p.urlPath() }

// urlPath escapes what GitLab wouldn't allow in a path but a test may want.
func (p *Project) urlPath() string { return (&url.URL{Path: "/" + p.Path}).EscapedPath() }

// Protected tells whether a branch or tag is protected.
func (p *Project) Protected(ref string) bool {
	return slices.ContainsFunc(p.ProtectedRefs, func(pattern string) bool {
		ok, err := path.Match(pattern, ref)
		return err == nil && ok
	})
}

// Commit lays files over the default branch and returns the commit's SHA.
func (p *Project) Commit(ctx context.Context, files map[string]string) (string, error) {
	return p.CommitTo(ctx, CommitSpec{Files: files})
}

// CommitDir makes a directory the tree of the default branch and returns the
// commit's SHA. A .git folder in it and what its .gitignore names are
// left out.
func (p *Project) CommitDir(ctx context.Context, dir string) (string, error) {
	return p.CommitTo(ctx, CommitSpec{Dir: dir})
}

// CommitTo makes a commit and returns its SHA.
func (p *Project) CommitTo(ctx context.Context, spec CommitSpec) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sha, err := p.commit(ctx, spec)
	if err != nil {
		return "", fmt.Errorf("commit to %s: %w", p.Path, err)
	}
	return sha, nil
}

func (p *Project) commit(ctx context.Context, spec CommitSpec) (string, error) {
	if spec.Branch == "" {
		spec.Branch = p.DefaultBranch
	}
	if spec.Message == "" {
		spec.Message = "Change"
	}
	parent := p.parent(ctx, spec.Branch)
	tree, err := p.tree(ctx, spec, parent)
	if err != nil {
		return "", err
	}
	args := []string{"commit-tree", tree, "-m", spec.Message}
	if parent != "" {
		args = append(args, "-p", parent)
	}
	sha, err := runGit(ctx, p.repo(), nil, nil, args...)
	if err != nil {
		return "", err
	}
	return sha, p.updateRef(ctx, "refs/heads/"+spec.Branch, sha)
}

// parent is empty for the repository's first commit.
func (p *Project) parent(ctx context.Context, branch string) string {
	for _, b := range []string{branch, p.DefaultBranch} {
		if sha, err := p.Resolve(ctx, "refs/heads/"+b); err == nil {
			return sha
		}
	}
	return ""
}

// tree writes the tree of a commit, in an index of its own.
func (p *Project) tree(ctx context.Context, spec CommitSpec, parent string) (string, error) {
	work, err := os.MkdirTemp(p.server.dir, "commit-")
	if err != nil {
		return "", fmt.Errorf("make work tree: %w", err)
	}
	defer os.RemoveAll(work)
	env := []string{"GIT_DIR=" + p.repo(), "GIT_INDEX_FILE=" + filepath.Join(work, ".index")}
	git := func(dir string, stdin io.Reader, args ...string) (string, error) {
		return runGit(ctx, dir, stdin, append(env, "GIT_WORK_TREE="+dir), args...)
	}
	switch {
	case spec.Dir != "":
		if _, err := git(spec.Dir, nil, "add", "--all", "."); err != nil {
			return "", err
		}
	case parent != "":
		if _, err := git(work, nil, "read-tree", parent); err != nil {
			return "", err
		}
	}
	if err := p.stageFiles(work, spec.Files, git); err != nil {
		return "", err
	}
	for name, sha := range spec.Submodules {
		if _, err := git(work, nil, "update-index", "--add", "--cacheinfo", "160000,"+sha+","+name); err != nil {
			return "", err
		}
	}
	return git(work, nil, "write-tree")
}

func (p *Project) stageFiles(work string, files map[string]string, git func(string, io.Reader, ...string) (string, error)) error {
	for name, content := range files {
		blob, err := git(work, strings.NewReader(content), "hash-object", "-w", "--stdin")
		if err != nil {
			return err
		}
		mode := "100644"
		if strings.HasPrefix(content, "#!") {
			mode = "100755"
		}
		if _, err := git(work, nil, "update-index", "--add", "--cacheinfo", mode+","+blob+","+name); err != nil {
			return err
		}
	}
	return nil
}

func (p *Project) updateRef(ctx context.Context, ref, sha string) error {
	_, err := runGit(ctx, p.repo(), nil, nil, "update-ref", ref, sha)
	return err
}

// Tag names the head of the default branch.
func (p *Project) Tag(ctx context.Context, name string) error {
	sha, err := p.Resolve(ctx, "refs/heads/"+p.DefaultBranch)
	if err != nil {
		return err
	}
	return p.updateRef(ctx, "refs/tags/"+name, sha)
}

// Resolve returns the commit that a branch, a tag or any full ref stands at.
func (p *Project) Resolve(ctx context.Context, ref string) (string, error) {
	return runGit(ctx, p.repo(), nil, nil, "rev-parse", "--verify", "--quiet", ref+"^{commit}")
}

// Blobs returns the blob id of every file of a commit, by path.
func (p *Project) Blobs(ctx context.Context, sha string) (map[string]string, error) {
	list, err := runGit(ctx, p.repo(), nil, nil, "ls-tree", "-r", "-z", sha)
	if err != nil {
		return nil, fmt.Errorf("list files of %s: %w", p.Path, err)
	}
	blobs := map[string]string{}
	for entry := range strings.SplitSeq(list, "\x00") {
		meta, name, ok := strings.Cut(entry, "\t")
		if fields := strings.Fields(meta); ok && len(fields) == 3 && fields[1] == "blob" {
			blobs[name] = fields[2]
		}
	}
	return blobs, nil
}

// ReadFile returns a file of a commit. A missing one is fs.ErrNotExist.
func (p *Project) ReadFile(ctx context.Context, sha, name string) ([]byte, error) {
	blobs, err := p.Blobs(ctx, sha)
	if err != nil {
		return nil, err
	}
	if blobs[name] == "" {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	content, err := runGit(ctx, p.repo(), nil, nil, "show", sha+":"+name)
	return []byte(content + "\n"), err
}

// AddMergeRequest opens a merge request from a branch to the default branch and
// makes its refs/merge-requests/<iid>/head.
func (p *Project) AddMergeRequest(ctx context.Context, title, sourceBranch string) (*MergeRequest, error) {
	source, err := p.Resolve(ctx, "refs/heads/"+sourceBranch)
	target, err2 := p.Resolve(ctx, "refs/heads/"+p.DefaultBranch)
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("merge request from %s: %w", sourceBranch, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mergeRequests++
	mr := &MergeRequest{
		ID: p.ID*1000 + p.mergeRequests, IID: p.mergeRequests, Title: title,
		SourceBranch: sourceBranch, TargetBranch: p.DefaultBranch, SourceSHA: source, TargetSHA: target,
	}
	if err := p.updateRef(ctx, mr.Ref(), source); err != nil {
		return nil, fmt.Errorf("merge request from %s: %w", sourceBranch, err)
	}
	return mr, nil
}

// Ref is where a merge request's commits are.
func (m *MergeRequest) Ref() string { return fmt.Sprintf("refs/merge-requests/%d/head", m.IID) }
