package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"podlane/cacheclient/key"
	"podlane/test/bed"
	"podlane/test/gitlabsim"
)

// onRef makes a pipeline of a project's branch, which it makes if need be.
func onRef(t *testing.T, b *bed.Bed, p *gitlabsim.Project, ref string) *gitlabsim.Pipeline {
	t.Helper()
	if ref != p.DefaultBranch {
		if _, err := p.CommitTo(t.Context(), gitlabsim.CommitSpec{Branch: ref, Message: "Start " + ref}); err != nil {
			t.Fatal(err)
		}
	}
	pipe, err := b.GitLab.NewPipeline(t.Context(), gitlabsim.PipelineSpec{Project: p, Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	return pipe
}

// scopedCredential is what podlane itself gets from Vault for jobs of one scope.
func scopedCredential(t *testing.T, b *bed.Bed, kind string, p *gitlabsim.Project, scope key.Scope) aws.Credentials {
	t.Helper()
	var answer struct {
		Data struct {
			AccessKey    string `json:"access_key"`
			SecretKey    string `json:"secret_key"`
			SessionToken string `json:"session_token"`
		}
	}
	path := fmt.Sprintf("%s/sts/podlane-cache-%s-%d-%s", b.Vault.Mounts.AWS, kind, p.ID, scope)
	if err := b.Vault.API(t.Context(), http.MethodPost, path, map[string]string{}, &answer); err != nil {
		t.Fatal(err)
	}
	return aws.Credentials{AccessKeyID: answer.Data.AccessKey, SecretAccessKey: answer.Data.SecretKey, SessionToken: answer.Data.SessionToken}
}

// Protected jobs never see what others have cached; others see what protected
// ones have, and cannot change it.
func TestCacheScopes(t *testing.T) {
	t.Parallel()
	needsStack(t)
	b := shared
	p := project(t, b, nil)
	protected, feature := onRef(t, b, p, p.DefaultBranch), onRef(t, b, p, "feature")
	job := func(pipe *gitlabsim.Pipeline, script string, caches ...gitlabsim.Cache) outcome {
		t.Helper()
		return runOn(t, b, gitlabsim.JobSpec{Pipeline: pipe, Script: []string{script}, Cache: caches})
	}
	deps := gitlabsim.Cache{Key: "deps", Paths: []string{"deps"}}
	lone := gitlabsim.Cache{Key: "lone", Paths: []string{"lone"}}

	o := job(protected, "echo protected > deps", deps)
	o.succeeded(t, "cache deps: miss: there is no entry yet", "cache deps: saved: 1 file")
	o = job(feature, "grep protected deps; echo feature > deps; echo feature > lone", deps, lone)
	o.succeeded(t, "cache deps: hit, from the protected caches: 1 file", "cache deps: saved: 1 file", "cache lone: saved: 1 file")
	o = job(feature, "grep feature deps; grep feature lone", deps, lone)
	o.succeeded(t, "cache deps: hit: 1 file", "cache lone: hit: 1 file")
	fallback := lone
	fallback.Key, fallback.FallbackKeys, fallback.Policy = "none", []string{"lone", "lo*"}, "pull"
	o = job(protected, "grep protected deps; test ! -e lone", deps, fallback)
	o.succeeded(t, "cache deps: hit: 1 file", "cache none: miss: neither this key nor a fallback has an entry yet")

	// The same with the job's credential and a client of one's own.
	space, err := key.NewSpace("podlane", key.Instance(b.GitLab.InstanceID()), p.ID)
	if err != nil {
		t.Fatal(err)
	}
	bucket, paths := aws.String(b.S3.Bucket), key.PathsOf(deps.Paths, false)
	theirs, mine := space.Object(key.Protected, "deps", paths), space.Object(key.Unprotected, "deps", paths)
	before, err := b.S3.Get(t.Context(), theirs)
	if err != nil {
		t.Fatal(err)
	}
	client := b.S3.ClientWith(scopedCredential(t, b, "write", p, key.Unprotected))
	put := func(name string) error {
		_, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: &name, Body: bytes.NewReader([]byte("poison"))})
		return err
	}
	if err := put(space.Object(key.Unprotected, "new", paths)); err != nil {
		t.Errorf("the credential does not write in its own scope, so it proves nothing: %v", err)
	}
	_, deleteErr := client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: bucket, Key: &theirs})
	_, copyErr := client.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: bucket, Key: &theirs, CopySource: aws.String(*bucket + "/" + mine)})
	_, uploadErr := client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: bucket, Key: &theirs})
	other, err := key.NewSpace("podlane", key.Instance(b.GitLab.InstanceID()), p.ID+1)
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"write anew":          put(space.Object(key.Protected, "new", paths)),
		"overwrite":           put(theirs),
		"delete":              deleteErr,
		"copy over":           copyErr,
		"begin an upload":     uploadErr,
		"write for another":   put(other.Object(key.Unprotected, "new", paths)),
		"leave with dots":     put(space.Dir(key.Unprotected) + "../protected/new"),
		"write beside scopes": put(strings.TrimSuffix(space.Dir(key.Unprotected), "unprotected/") + "new"),
	} {
		var denied smithy.APIError
		if !errors.As(err, &denied) {
			t.Errorf("%s: %v, want a refusal", what, err)
		}
	}
	reader := b.S3.ClientWith(scopedCredential(t, b, "read", p, key.Protected))
	if _, err := reader.GetObject(t.Context(), &s3.GetObjectInput{Bucket: bucket, Key: &mine}); err == nil {
		t.Error("a protected job's credential reads what an unprotected one has written")
	}
	after, err := b.S3.Get(t.Context(), theirs)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the protected cache has changed: %v", err)
	}
}

// Where Vault gives nothing, jobs go on without caches.
func TestCacheWithoutRoles(t *testing.T) {
	t.Parallel()
	needsStack(t)
	p, err := shared.GitLab.AddProject(t.Context(), gitlabsim.ProjectSpec{Path: "group/p" + randomHex()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Commit(t.Context(), map[string]string{"README": "x"}); err != nil {
		t.Fatal(err)
	}
	o := run(t, gitlabsim.JobSpec{Project: p, Script: []string{"echo x > deps"}, Cache: []gitlabsim.Cache{{Key: "deps", Paths: []string{"deps"}}}})
	o.succeeded(t, "cache deps: error: ", "the job goes on without", "it is not saved")
	o.doesNotLog(t, "cache deps: saved")
}
