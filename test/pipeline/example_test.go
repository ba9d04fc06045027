package pipeline_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"podlane/test/gitlabsim"
	"podlane/test/pipeline"
)

// TestExampleJobs runs the example's scripts on this machine, wave by wave in
// one checkout, as its jobs would with artifacts passed on. Those that need a
// cluster are left to the end-to-end tests.
func TestExampleJobs(t *testing.T) {
	for _, tool := range []string{"bash", "go", "node", "make", "curl", "git"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the example's jobs need %s: %v", tool, err)
		}
	}
	dir, p := exampleCheckout(t)
	for _, job := range p.Jobs {
		t.Run(job.Name, func(t *testing.T) {
			if job.Spec.Environment != nil {
				t.Skip("deploys to a cluster")
			}
			cmd := exec.CommandContext(t.Context(), "bash", "-e", "-o", "pipefail", "-c", strings.Join(job.Spec.Script, "\n"))
			cmd.Dir = dir
			cmd.Env = append(os.Environ(),
				"GOFLAGS=", "GOTOOLCHAIN=local", "GOPROXY=off", "CGO_ENABLED=0",
				"CI_PROJECT_PATH=group/monorepo", "CI_MERGE_REQUEST_IID=1", "CI_COMMIT_SHORT_SHA=12345678")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
	checkImage(t, filepath.Join(dir, "image.tar"))
	render := exec.CommandContext(t.Context(), "deploy/review.sh", "registry.example.com/group/monorepo@sha256:1", "review-1-abc", "review.yaml")
	render.Dir = dir
	render.Env = append(os.Environ(), "CI_MERGE_REQUEST_IID=1")
	if out, err := render.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	manifest, err := os.ReadFile(filepath.Join(dir, "review.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"name: review-1-abc\n", "image: registry.example.com/group/monorepo@sha256:", "host: mr-1.review.example.com\n"} {
		if !strings.Contains(string(manifest), want) {
			t.Errorf("review.yaml lacks %q", want)
		}
	}
}

// exampleCheckout is a clone of the example as a merge request, and its plan.
func exampleCheckout(t *testing.T) (string, *pipeline.Plan) {
	t.Helper()
	server, err := gitlabsim.Start(t.Context(), gitlabsim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	project, err := server.AddProject(t.Context(), gitlabsim.ProjectSpec{Path: "group/monorepo"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := project.CommitDir(t.Context(), "../../examples/monorepo"); err != nil {
		t.Fatal(err)
	}
	if _, err := project.CommitTo(t.Context(), gitlabsim.CommitSpec{Branch: "change", Files: map[string]string{"note": "x\n"}}); err != nil {
		t.Fatal(err)
	}
	mr, err := project.AddMergeRequest(t.Context(), "Change", "change")
	if err != nil {
		t.Fatal(err)
	}
	p, err := server.NewPipeline(t.Context(), gitlabsim.PipelineSpec{Project: project, MergeRequest: mr})
	if err != nil {
		t.Fatal(err)
	}
	facts, err := pipeline.FactsOf(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	file, err := project.ReadFile(t.Context(), p.SHA, ".gitlab-ci.yml")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pipeline.New(parse(t, string(file)), facts)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "monorepo")
	job, err := server.Enqueue(t.Context(), gitlabsim.JobSpec{Pipeline: p})
	if err != nil {
		t.Fatal(err)
	}
	clone(t, server, job, dir)
	return dir, plan
}

// clone checks a job's commit out as its runner would.
func clone(t *testing.T, server *gitlabsim.Server, job *gitlabsim.Job, dir string) {
	t.Helper()
	w := &worker{server: server}
	payload, err := w.take(t.Context())
	if err != nil || payload == nil || payload.ID != job.ID {
		t.Fatalf("take job %d: %+v, %v", job.ID, payload, err)
	}
	for _, args := range [][]string{
		{"init", "-q", dir},
		append([]string{"-C", dir, "fetch", "-q", "--depth", "1", payload.GitInfo.RepoURL}, payload.GitInfo.Refspecs...),
		{"-C", dir, "checkout", "-q", payload.GitInfo.SHA},
	} {
		if out, err := exec.CommandContext(t.Context(), "git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
	}
}

// checkImage follows the image from its index and checks every digest.
func checkImage(t *testing.T, file string) {
	t.Helper()
	dir := t.TempDir()
	untar(t, file, dir)
	content, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(blob(t, dir, index.Manifests[0])))
	if err != nil {
		t.Fatal(err)
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(blob(t, dir, manifest.Config)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/app/server", "-static", "/app/static"}, config.Config.Entrypoint); diff != "" {
		t.Errorf("entrypoint (-want +got):\n%s", diff)
	}
	layer := gunzip(t, blob(t, dir, manifest.Layers[0]))
	if got := digest(t, layer); got != config.RootFS.DiffIDs[0] {
		t.Errorf("the layer's content is %s, the config says %s", got, config.RootFS.DiffIDs[0])
	}
	names := tarNames(t, layer)
	for _, want := range []string{"app/server", "app/static/index.html"} {
		if !slices.Contains(names, want) {
			t.Errorf("the image has %q, but not %s", names, want)
		}
	}
}

// blob reads what a descriptor points to, and checks it.
func blob(t *testing.T, layout string, d v1.Descriptor) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(layout, "blobs", d.Digest.Algorithm, d.Digest.Hex))
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(content)) != d.Size || digest(t, content) != d.Digest {
		t.Errorf("blob %s has %d bytes and digest %s, expected %d bytes", d.Digest, len(content), digest(t, content), d.Size)
	}
	return content
}

func digest(t *testing.T, content []byte) v1.Hash {
	t.Helper()
	sum, _, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func gunzip(t *testing.T, content []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func tarNames(t *testing.T, content []byte) []string {
	t.Helper()
	var names []string
	archive := tar.NewReader(bytes.NewReader(content))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
}

func untar(t *testing.T, file, dir string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "tar", "-xf", file, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
}
