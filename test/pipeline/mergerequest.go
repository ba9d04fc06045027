package pipeline

import (
	"context"
	"fmt"

	"podlane/test/gitlabsim"
)

// MergeRequest puts a folder's files into a project, opens a merge request in
// it, and plans the pipeline that GitLab would start for that.
func MergeRequest(ctx context.Context, project *gitlabsim.Project, server *gitlabsim.Server, dir string) (*gitlabsim.Pipeline, *Plan, error) {
	if _, err := project.CommitDir(ctx, dir); err != nil {
		return nil, nil, err
	}
	if _, err := project.CommitTo(ctx, gitlabsim.CommitSpec{Branch: "feature", Message: "Change the greeting"}); err != nil {
		return nil, nil, err
	}
	mr, err := project.AddMergeRequest(ctx, "Change the greeting", "feature")
	if err != nil {
		return nil, nil, err
	}
	pipe, err := server.NewPipeline(ctx, gitlabsim.PipelineSpec{Project: project, MergeRequest: mr})
	if err != nil {
		return nil, nil, err
	}
	text, err := project.ReadFile(ctx, pipe.SHA, ".gitlab-ci.yml")
	if err != nil {
		return nil, nil, err
	}
	config, err := Parse(".gitlab-ci.yml", text)
	if err != nil {
		return nil, nil, err
	}
	facts, err := FactsOf(ctx, pipe)
	if err != nil {
		return nil, nil, err
	}
	plan, err := New(config, facts)
	if err != nil {
		return nil, nil, fmt.Errorf("plan the pipeline: %w", err)
	}
	return pipe, plan, nil
}
