package e2e

import (
	"errors"
	"os"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
)

func s3Root(t *testing.T) *s3.Client {
	t.Helper()
	password, err := os.ReadFile(shared.Stack.S3RootPasswordFile)
	if err != nil {
		t.Fatal(err)
	}
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(shared.Stack.S3Address), UsePathStyle: true, Region: stackenv.S3Region,
		Credentials: credentials.NewStaticCredentialsProvider(stackenv.S3RootUser, string(password), ""),
	})
}

func cacheBed(t *testing.T) *bed.Bed {
	t.Helper()
	needsStack(t)
	password, err := os.ReadFile(shared.Stack.S3RootPasswordFile)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s3Root(t).CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(stackenv.S3Bucket)})
	var owned *types.BucketAlreadyOwnedByYou
	if err != nil && !errors.As(err, &owned) {
		t.Fatal(err)
	}
	b, err := bed.Start(t.Context(), bed.Options{
		Root: ".", Environ: append(os.Environ(), "AWS_ACCESS_KEY_ID="+stackenv.S3RootUser, "AWS_SECRET_ACCESS_KEY="+string(password)), Concurrent: 6,
		Settings: bed.Settings{"cache": {
			"endpoint": quoted(shared.Stack.S3Address), "bucket": quoted(stackenv.S3Bucket), "path_style": "true",
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// The first job of a key misses and saves, the next one hits, and saves only
// what has changed.
func TestCacheMissThenHit(t *testing.T) {
	t.Parallel()
	b := cacheBed(t)
	spec := gitlabsim.JobSpec{
		Project:   project(t, b, map[string]string{"package-lock.json": "1", "sub/package-lock.json": "2"}),
		Variables: []gitlabsim.Variable{{Key: "LOCKFILES_NODE", Value: "**/package-lock.json"}},
		Cache: []gitlabsim.Cache{
			{Key: "node-$LOCKFILES_NODE", Paths: []string{"deps"}},
			{Key: "build", Paths: []string{"out"}},
			{Key: "empty", Paths: []string{"nothing"}},
		},
		Script: []string{"test ! -e deps; test ! -e out", "mkdir -p deps/sub out; echo one > deps/a; ln -s a deps/link; echo two > out/b"},
	}
	o := runOn(t, b, spec)
	o.succeeded(t, "miss: there is no entry for node-* yet", "cache build: miss: there is no entry yet", "…: saved: 1 file, 4 B as ",
		"cache build: saved: 1 file, 4 B as ", "cache empty: not saved: it would be empty: nothing: no such files")

	spec.Script = []string{"test $(cat deps/link) = one; test $(cat out/b) = two"}
	o = runOn(t, b, spec)
	o.succeeded(t, "…: hit: 1 file, 4 B from ", "cache build: hit: 1 file, 4 B from ", "…: not saved: it is there already, saved just now",
		"cache build: not saved: nothing has changed since it was restored", "cache empty: miss")

	spec.Script = []string{"echo three > out/b; echo three > deps/a"}
	o = runOn(t, b, spec)
	o.succeeded(t, "…: not saved: it is there already", "cache build: saved: 1 file, 6 B")
}
