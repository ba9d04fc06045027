package pipeline_test

import (
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"podlane/test/gitlabsim"
	"podlane/test/pipeline"
)

var update = flag.Bool("update", false, "write golden files")

func facts(pairs ...string) pipeline.Facts {
	var f pipeline.Facts
	for i := 0; i < len(pairs); i += 2 {
		f.Variables = append(f.Variables, gitlabsim.Variable{Key: pairs[i], Value: pairs[i+1]})
	}
	return f
}

func plan(t *testing.T, text string, f pipeline.Facts) *pipeline.Plan {
	t.Helper()
	p, err := pipeline.New(parse(t, text), f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWaves(t *testing.T) {
	tests := []struct{ name, yaml, want string }{
		{
			"stages", `
a: {stage: build, script: x}
b: {stage: test, script: x}
c: {stage: test, script: x}
d: {stage: deploy, script: x}
`,
			`wave 1  a
wave 2  b after a
wave 2  c after a
wave 3  d after a, b, c
`,
		},
		{
			"needs", `
slow: {stage: build, script: x}
fast: {stage: test, needs: [], script: x}
next: {stage: deploy, needs: [fast], script: x}
last: {stage: .post, script: x}
`,
			`wave 1  slow
wave 1  fast
wave 2  next after fast
wave 3  last after slow, fast, next
`,
		},
		{
			"when", `
a: {stage: build, script: x}
b: {stage: deploy, script: x, when: manual}
c: {stage: .post, script: x, when: on_failure, needs: [a]}
`,
			`wave 1  a
wave 2  b (manual) after a
wave 2  c (on_failure) after a
`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, plan(t, tt.yaml, pipeline.Facts{}).String()); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlanMistakes(t *testing.T) {
	tests := map[string]string{
		"job b: needs a, which isn't in the pipeline": `
a: {script: x, rules: [{if: $NEVER}]}
b: {script: x, needs: [a]}
`,
		"job a: needs b, which is in the later stage deploy": `
a: {script: x, needs: [b]}
b: {stage: deploy, script: x}
`,
		"jobs need each other: a, b": `
a: {script: x, needs: [b]}
b: {script: x, needs: [a]}
`,
		"job b: depends on a, which doesn't come before it": `
a: {script: x}
b: {script: x, dependencies: [a]}
`,
	}
	for want, text := range tests {
		_, err := pipeline.New(parse(t, text), pipeline.Facts{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestRules(t *testing.T) {
	const text = `
plain: {script: x}
mr:
  script: x
  rules: [{if: $CI_PIPELINE_SOURCE == "merge_request_event", variables: {FROM: rule}}]
docs:
  script: x
  rules: [{changes: ["docs/**/*.md"]}]
main:
  script: x
  rules:
    - {if: $CI_COMMIT_BRANCH != "main", when: never}
    - {when: manual, allow_failure: true}
`
	branch := facts("CI_PIPELINE_SOURCE", "push", "CI_COMMIT_BRANCH", "main")
	branch.Changes = []string{"src/x.go"}
	mr := facts("CI_PIPELINE_SOURCE", "merge_request_event")
	mr.MergeRequest, mr.Changes = true, []string{"docs/a/b.md"}
	for name, tt := range map[string]struct {
		text  string
		facts pipeline.Facts
		want  string
	}{
		"branch":                 {text, branch, "plain main(manual)"},
		"merge request":          {text, mr, "mr docs"},
		"merge request workflow": {"workflow: {rules: [{when: always}]}" + text, mr, "plain mr docs"},
	} {
		var got []string
		for _, job := range plan(t, tt.text, tt.facts).Jobs {
			label := job.Name
			if job.When == "manual" {
				label += "(manual)"
			}
			got = append(got, label)
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	_, err := pipeline.New(parse(t, "workflow: {rules: [{if: $NEVER}]}"+text), branch)
	if !errors.Is(err, pipeline.ErrNoPipeline) {
		t.Errorf("error %v, want %v", err, pipeline.ErrNoPipeline)
	}
}

func TestExpansion(t *testing.T) {
	p := plan(t, `
variables: {TIER: "$KIND-eu", KIND: gpu}
job:
  image: $IMAGE
  tags: [$TIER]
  script: echo $TIER
  environment: {name: review/$CI_MERGE_REQUEST_IID, url: "https://$CI_ENVIRONMENT_SLUG.example.com"}
`, facts("CI_MERGE_REQUEST_IID", "7"))
	spec := p.Jobs[0].Spec
	got := []string{spec.Image.Name, spec.Tags[0], spec.Script[0], spec.Environment.Name, spec.Environment.URL}
	want := []string{"$IMAGE", "gpu-eu", "echo $TIER", "review/7", "https://$CI_ENVIRONMENT_SLUG.example.com"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("expanded (-want +got):\n%s", diff)
	}
}

func TestCacheKeys(t *testing.T) {
	f := pipeline.Facts{Blobs: map[string]string{"go.sum": "bbb", "sub/go.sum": "aaa", "copy/go.sum": "aaa", "x": "ccc"}}
	sum := func(text string) string {
		s := sha1.Sum([]byte(text))
		return hex.EncodeToString(s[:])
	}
	p := plan(t, `
job:
  script: x
  cache:
    - {paths: [p]}
    - {key: $CI_COMMIT_REF_SLUG, paths: [p]}
    - {key: {files: [x, go.sum], prefix: go}, paths: [p]}
    - {key: {files: ["**/go.sum"]}, paths: [p]}
    - {key: {files: [none], prefix: $P}, paths: [p]}
`, f)
	var got []string
	for _, c := range p.Jobs[0].Spec.Cache {
		got = append(got, c.Key)
	}
	want := []string{"default", "$CI_COMMIT_REF_SLUG", "go-" + sum("bbb-ccc"), "3-" + sum("aaa-bbb"), "$P-default"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

func TestExamplePlan(t *testing.T) {
	file := "../../examples/monorepo/.gitlab-ci.yml"
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	config, err := pipeline.Parse(file, content)
	if err != nil {
		t.Fatal(err)
	}
	mr := facts("CI_PIPELINE_SOURCE", "merge_request_event", "CI_MERGE_REQUEST_IID", "7")
	mr.MergeRequest = true
	main := facts("CI_PIPELINE_SOURCE", "push", "CI_COMMIT_BRANCH", "main", "CI_DEFAULT_BRANCH", "main")
	for name, f := range map[string]pipeline.Facts{"merge-request": mr, "main": main} {
		p, err := pipeline.New(config, f)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "monorepo-"+name+".txt", p.String())
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
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
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}
