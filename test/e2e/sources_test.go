package e2e

import (
	"testing"

	"podlane/test/gitlabsim"
)

func TestShallowFetch(t *testing.T) {
	t.Parallel()
	p := project(t, shared, nil)
	for _, text := range []string{"two", "three", "four"} {
		if _, err := p.Commit(t.Context(), map[string]string{"README": text + "\n"}); err != nil {
			t.Fatal(err)
		}
	}
	run(t, gitlabsim.JobSpec{
		Project: p, Variables: []gitlabsim.Variable{{Key: "GIT_DEPTH", Value: "2"}},
		Script: []string{"cat README", "echo $(git rev-list --count HEAD) commits"},
	}).succeeded(t, "\nfour\n", "\n2 commits\n")
}

func TestSubmodule(t *testing.T) {
	t.Parallel()
	inner := project(t, shared, map[string]string{"inner.txt": "from the submodule\n"})
	head, err := inner.Resolve(t.Context(), "main")
	if err != nil {
		t.Fatal(err)
	}
	outer := project(t, shared, nil)
	if _, err := outer.CommitTo(t.Context(), gitlabsim.CommitSpec{Submodules: map[string]string{"lib": head}, Files: map[string]string{
		".gitmodules": "[submodule \"lib\"]\n\tpath = lib\n\turl = " + inner.URL() + ".git\n",
	}}); err != nil {
		t.Fatal(err)
	}
	run(t, gitlabsim.JobSpec{
		Project: outer, Variables: []gitlabsim.Variable{{Key: "GIT_SUBMODULE_STRATEGY", Value: "recursive"}},
		Script: []string{"cat lib/inner.txt"},
	}).succeeded(t, "from the submodule")
}

func TestOddProjectPath(t *testing.T) {
	t.Parallel()
	path := "Group.With-Dots/sub_group/Project.Name--with_all.of-it" + randomHex()
	p, err := shared.GitLab.AddProject(t.Context(), gitlabsim.ProjectSpec{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Commit(t.Context(), map[string]string{"a file with spaces": "odd\n"}); err != nil {
		t.Fatal(err)
	}
	run(t, gitlabsim.JobSpec{
		Project: p, Name: "job: [with, \"quotes\"] & ünïcode / 1/2",
		Script: []string{"pwd", "cat 'a file with spaces'"},
	}).succeeded(t, "/builds/"+path+"\n", "\nodd\n")
}

func TestArtifactsForANeedsJob(t *testing.T) {
	t.Parallel()
	p := project(t, shared, nil)
	first := run(t, gitlabsim.JobSpec{
		Project: p, Name: "first", Script: []string{"mkdir -p out/deep", "echo made by first > out/deep/file", "printf '#!/bin/sh\\necho I can run\\n' > out/run", "chmod +x out/run"},
		Artifacts: []gitlabsim.Artifact{{Paths: []string{"out/"}, When: "on_success"}},
	})
	first.succeeded(t, "Uploading artifacts")
	run(t, gitlabsim.JobSpec{
		Project: p, Name: "second", Dependencies: []*gitlabsim.Job{first.job},
		Script: []string{"cat out/deep/file", "out/run"},
	}).succeeded(t, "Downloading artifacts", "made by first", "I can run")
}

func TestArtifactsOnFailure(t *testing.T) {
	t.Parallel()
	o := run(t, gitlabsim.JobSpec{
		Script:    []string{"echo report > report.txt", "exit 4"},
		Artifacts: []gitlabsim.Artifact{{Paths: []string{"report.txt"}, When: "always"}},
	})
	o.failed(t, 4)
	if content, ok, err := o.job.Artifact("archive"); err != nil || !ok || len(content) == 0 {
		t.Errorf("the failed job's artifact is not there: %v", err)
	}
}
