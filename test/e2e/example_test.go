package e2e

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/pipeline"
)

// exampleLimit bounds the example's pipeline: half a minute on an idle machine.
const exampleLimit = 12 * time.Minute

// The pipeline of the example, as for a merge request: it builds and pushes an
// image, deploys it into a namespace of its own, and takes that away again.
func TestExample(t *testing.T) {
	t.Parallel()
	needsStack(t)
	b, err := startWith(t.Context(), nil, nil, bed.Review)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), exampleLimit)
	defer cancel()
	variables, err := b.ReviewVariables(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.AddProject(ctx, gitlabsim.ProjectSpec{Path: "examples/monorepo", Variables: variables})
	if err != nil {
		t.Fatal(err)
	}
	pipe, plan, err := pipeline.MergeRequest(ctx, p, b.GitLab, filepath.Join(b.Root(), "examples", "monorepo"))
	if err != nil {
		t.Fatal(err)
	}
	report, err := pipeline.Run(ctx, b.GitLab, pipe, plan, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range report.Rows {
		if row.Job != nil && row.State != string(gitlabsim.Success) {
			trace, _ := row.Job.Trace()
			t.Errorf("%s is %s\n%s", row.Name, row.State, tail(string(trace)))
		}
	}
	deploy := report.Row("deploy:review")
	if t.Failed() || deploy.Job == nil {
		t.Fatal("the review app is not there")
	}
	trace, err := deploy.Job.Trace()
	if err != nil {
		t.Fatal(err)
	}
	namespace := reviewNamespace(t, b, string(trace))

	// Somebody stops the environment.
	for _, planned := range plan.Jobs {
		if planned.Name != "stop:review" {
			continue
		}
		spec := planned.Spec
		spec.Pipeline, spec.Manual = pipe, true
		finish(t, enqueue(t, b, spec)).succeeded(t, "namespace "+namespace+" is gone")
	}
	if _, err := b.Kube.Raw(ctx, "/api/v1/namespaces/"+namespace); !apierrors.IsNotFound(err) {
		t.Errorf("namespace %s: %v, want not found", namespace, err)
	}
}

// reviewNamespace finds the namespace that the example has made, which the log of
// the deployment names, and checks that its app is up. The demo may have left one
// of its own.
func reviewNamespace(t *testing.T, b *bed.Bed, log string) string {
	t.Helper()
	text, err := b.Kube.Raw(t.Context(), "/apis/apps/v1/deployments")
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name, Namespace string }
			Status   struct{ AvailableReplicas int }
		}
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	for _, d := range list.Items {
		if d.Metadata.Name == "board" && d.Status.AvailableReplicas == 1 && strings.Contains(log, d.Metadata.Namespace) {
			return d.Metadata.Namespace
		}
	}
	t.Fatalf("there is no deployment board that is available: %s", text)
	return ""
}
