package spec_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"podlane/test/runnersim/spec"
)

func TestExpand(t *testing.T) {
	vars := spec.Variables{
		{Key: spec.TempDirKey, Value: "/b/p.tmp"},
		{Key: "A", Value: "a"},
		{Key: "FILE", Value: "content of $A", File: true},
		{Key: "B", Value: "${A}b $FILE $$A $NONE$1"},
		{Key: "ONCE", Value: "$B"},
		{Key: "RAW", Value: "$A", Raw: true},
	}
	got := map[string]string{}
	for _, v := range vars.Expand() {
		got[v.Key] = v.Value
	}
	want := map[string]string{
		spec.TempDirKey: "/b/p.tmp", "A": "a", "FILE": "content of a",
		"B": "ab /b/p.tmp/FILE $A ", "ONCE": "${A}b $FILE $$A $NONE$1", "RAW": "$A",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSettings(t *testing.T) {
	s := spec.NewSettings(&spec.Job{AllowGitFetch: true, GitInfo: spec.GitInfo{Depth: 3}}, spec.Variables{
		{Key: "GIT_CLEAN_FLAGS", Value: "none"},
		{Key: "GIT_SUBMODULE_STRATEGY", Value: "all"},
		{Key: "GET_SOURCES_ATTEMPTS", Value: "0"},
		{Key: "GIT_CHECKOUT", Value: "maybe"},
	})
	want := spec.Settings{
		GitStrategy: "fetch", GitCheckout: true, GitFetchFlags: []string{"--prune", "--quiet"},
		SubmoduleStrategy: "invalid", SubmodulePaths: []string{}, SubmoduleDepth: 3,
		GetSourcesAttempts: 1, RestoreCacheAttempts: 1, ArtifactDownloadAttempts: 1,
		AfterScriptIgnoreErrors: true, CacheRequestTimeout: 10,
		Problems: []string{
			`GIT_CHECKOUT: expected bool got "maybe", using default value: true`,
			`GIT_SUBMODULE_STRATEGY: expected one of none, normal, recursive, got "all"`,
			"GET_SOURCES_ATTEMPTS: number of attempts out of the range [1, 10], clamping to: 1",
		},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestProjectDir(t *testing.T) {
	for url, want := range map[string]string{
		"https://gitlab-ci-token:x@gitlab.test/group/shop.git": "/group/shop",
		"http://gitlab.test/gitlab/a/b%20c.git":                "/gitlab/a/b c",
		"http://gitlab.test/group/../x.git":                    "/x",
		"/local/path":                                          "project-7",
		"http://gitlab.test/Group.1/_odd-~name.git":            "/Group.1/_odd-~name",
	} {
		j := spec.Job{JobInfo: spec.JobInfo{ProjectID: 7}, GitInfo: spec.GitInfo{RepoURL: url}}
		if got := j.ProjectDir(); got != want {
			t.Errorf("ProjectDir of %s = %s, want %s", url, got, want)
		}
	}
}

func TestApplies(t *testing.T) {
	for when, want := range map[string][2]bool{
		"": {true, false}, "on_success": {true, false}, "on_failure": {false, true}, "always": {true, true},
	} {
		if got := [2]bool{spec.Applies(when, true), spec.Applies(when, false)}; got != want {
			t.Errorf("%q applies on success, failure: %v, want %v", when, got, want)
		}
	}
}

func TestDecode(t *testing.T) {
	var j spec.Job
	if err := json.Unmarshal([]byte(`{"inputs": [{"key": "a"}], "image": {"executor_opts": {"docker": {"user": "me"}, "kubernetes": {"user": 12}}}}`), &j); err != nil {
		t.Fatal(err)
	}
	if o := j.Image.ExecutorOptions; o.Docker.User != "me" || o.Kubernetes.User != "12" {
		t.Errorf("users = %q, %q", o.Docker.User, o.Kubernetes.User)
	}
	if err := json.Unmarshal([]byte(`{"image": {"executor_opts": {"docker": {"user": []}}}}`), &j); err == nil {
		t.Error("a list was taken for a user")
	}
}
