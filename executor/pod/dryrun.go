package pod

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podlane/executor/gitlab"
	"podlane/executor/settings"
)

// TemplateProblem is what is wrong with the pods that a template makes. Name is
// empty for jobs without a named one.
type TemplateProblem struct {
	Name string
	Err  error
}

// CheckTemplates plans a pod for each template. It asks nobody.
func CheckTemplates(s *settings.Settings) []TemplateProblem {
	return eachTemplate(s, func(*Manifest) error { return nil })
}

// DryRunTemplates has the API server judge a pod of each template, without
// making one: its validation, its admission plugins, quotas and policies. c is
// a client for the namespace of the jobs.
func (c *Client) DryRunTemplates(ctx context.Context, s *settings.Settings) []TemplateProblem {
	return eachTemplate(s, func(m *Manifest) error { return c.DryRun(ctx, m) })
}

// DryRun has the API server judge the manifest's pod without making it.
func (c *Client) DryRun(ctx context.Context, m *Manifest) error {
	err := c.dryRun(ctx, m.Pod)
	if m.restrict(err) {
		err = c.dryRun(ctx, m.Pod)
	}
	return refusal(err)
}

func (c *Client) dryRun(ctx context.Context, pod *corev1.Pod) error {
	pod = pod.DeepCopy()
	// The client's own namespace, whatever the sample job would have.
	pod.Namespace = c.namespace
	return c.retry(ctx, "dry run of pod "+pod.Name, func(ctx context.Context) error {
		return c.rest.Post().Namespace(c.namespace).Resource("pods").
			VersionedParams(&metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}, c.params).Body(pod).Do(ctx).Error()
	})
}

func eachTemplate(s *settings.Settings, judge func(*Manifest) error) []TemplateProblem {
	var problems []TemplateProblem
	names := []string{""}
	for _, t := range s.PodTemplates {
		names = append(names, t.Name)
	}
	for _, name := range names {
		m, err := Build(sampleJob(s, name), s, "sample")
		if err == nil {
			err = judge(m)
		}
		if err != nil {
			problems = append(problems, TemplateProblem{Name: name, Err: fmt.Errorf("a sample job's pod: %w", err)})
		}
	}
	return problems
}

// sampleJob is one that may have the template. Without a name it gets what jobs
// get that ask for nothing.
func sampleJob(s *settings.Settings, template string) *gitlab.Job {
	job := &gitlab.Job{
		ID:      1,
		JobInfo: gitlab.JobInfo{Name: "sample", ProjectID: 1, PipelineID: 1, ProjectFullPath: "sample/project"},
		GitInfo: gitlab.GitInfo{RepoURL: "https://gitlab.invalid/sample/project.git", Ref: "main"},
		Image:   gitlab.Image{Name: s.Job.Image},
	}
	if job.Image.Name == "" {
		job.Image.Name = s.Job.HelperImage
	}
	for _, t := range s.PodTemplates {
		if t.Name == template {
			job.GitInfo.Protected = new(true)
			if len(t.Projects) > 0 {
				job.JobInfo.ProjectID = t.Projects[0]
			}
			job.Variables = gitlab.Variables{{Key: settings.TemplateVariable, Value: template}}
		}
	}
	return job
}
