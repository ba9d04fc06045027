package gitlabsim

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// PipelineSpec describes a pipeline.
type PipelineSpec struct {
	Project *Project
	// Ref is a branch or, with Tag, a tag. Empty: the default branch.
	Ref string
	Tag bool
	// SHA to build; empty: where Ref stands.
	SHA string
	// MergeRequest makes it a merge-request pipeline; Ref and SHA are its own.
	MergeRequest *MergeRequest
	// Source is push unless set, or merge_request_event.
	Source string
	// Variables of whoever started the pipeline. They win over the project's.
	Variables []Variable
}

// Pipeline is what jobs of one commit have in common.
type Pipeline struct {
	PipelineSpec
	ID        int64
	Protected bool
	Created   time.Time
	commit    commitFacts
}

// commitFacts are what CI_COMMIT_* say about the commit.
type commitFacts struct{ before, message, title, description, timestamp, author string }

// NewPipeline makes a pipeline and its refs/pipelines/<id>.
func (s *Server) NewPipeline(ctx context.Context, spec PipelineSpec) (*Pipeline, error) {
	p, err := s.newPipeline(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("make pipeline: %w", err)
	}
	return p, nil
}

func (s *Server) newPipeline(ctx context.Context, spec PipelineSpec) (*Pipeline, error) {
	if spec.Project == nil {
		return nil, fmt.Errorf("it has no project")
	}
	if mr := spec.MergeRequest; mr != nil {
		spec.Ref, spec.SHA = mr.Ref(), mr.SourceSHA
	}
	if spec.Ref == "" {
		spec.Ref = spec.Project.DefaultBranch
	}
	if spec.Source == "" {
		spec.Source = "push"
		if spec.MergeRequest != nil {
			spec.Source = "merge_request_event"
		}
	}
	p := &Pipeline{PipelineSpec: spec, Created: time.Now()}
	// GitLab treats a merge request's ref as unprotected.
	p.Protected = spec.MergeRequest == nil && spec.Project.Protected(spec.Ref)
	if p.SHA == "" {
		sha, err := spec.Project.Resolve(ctx, p.fullRef())
		if err != nil {
			return nil, fmt.Errorf("find %s in %s: %w", spec.Ref, spec.Project.Path, err)
		}
		p.SHA = sha
	}
	if err := p.readCommit(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.pipelines++
	p.ID = s.pipelines
	s.mu.Unlock()
	return p, spec.Project.updateRef(ctx, p.persistentRef(), p.SHA)
}

func (p *Pipeline) readCommit(ctx context.Context) error {
	out, err := runGit(ctx, p.Project.repo(), nil, nil,
		"log", "-1", "--format=%cI%x00%an <%ae>%x00%P%x00%B", p.SHA)
	if err != nil {
		return fmt.Errorf("read commit: %w", err)
	}
	parts := strings.SplitN(out, "\x00", 4)
	message := strings.TrimRight(parts[3], "\n") + "\n"
	title, description, _ := strings.Cut(message, "\n")
	before, _, _ := strings.Cut(parts[2], " ")
	if before == "" || p.MergeRequest != nil {
		before = strings.Repeat("0", 40)
	}
	p.commit = commitFacts{
		before: before, message: message, title: title,
		description: strings.TrimLeft(description, "\n"), timestamp: parts[0], author: parts[1],
	}
	return nil
}

// fullRef is refs/heads/main for main.
func (p *Pipeline) fullRef() string {
	switch {
	case p.MergeRequest != nil:
		return p.Ref
	case p.Tag:
		return "refs/tags/" + p.Ref
	default:
		return "refs/heads/" + p.Ref
	}
}

// sourceRef is the branch even for a merge request.
func (p *Pipeline) sourceRef() string {
	if p.MergeRequest != nil {
		return p.MergeRequest.SourceBranch
	}
	return p.Ref
}

func (p *Pipeline) refType() string {
	if p.Tag {
		return "tag"
	}
	return "branch"
}

func (p *Pipeline) persistentRef() string { return fmt.Sprintf("refs/pipelines/%d", p.ID) }

// refspecs as GitLab's app/presenters/ci/build_runner_presenter.rb has them:
// the pipeline's own ref, and the branch or tag, or all of them for a full clone.
func (p *Pipeline) refspecs(depth int) []string {
	specs := []string{"+" + p.persistentRef() + ":" + p.persistentRef()}
	switch {
	case depth == 0:
		return append(specs, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
	case p.MergeRequest != nil:
		return specs
	case p.Tag:
		return append(specs, "+refs/tags/"+p.Ref+":refs/tags/"+p.Ref)
	default:
		return append(specs, "+refs/heads/"+p.Ref+":refs/remotes/origin/"+p.Ref)
	}
}
