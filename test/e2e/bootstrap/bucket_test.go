package bootstrap

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func newBucket(t *testing.T) (name string, args []string) {
	t.Helper()
	name = "bootstrap-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	return name, []string{"--bucket", name, "--endpoint", shared.S3.Endpoint, "--key-file", shared.Stack.S3RootKeyFile}
}

func lifecycle(t *testing.T, bucket string) map[string]int32 {
	t.Helper()
	answer, err := shared.S3.Client.GetBucketLifecycleConfiguration(t.Context(), &s3.GetBucketLifecycleConfigurationInput{Bucket: &bucket})
	if err != nil {
		t.Fatal(err)
	}
	days := map[string]int32{}
	for _, r := range answer.Rules {
		if r.Expiration != nil {
			days[aws.ToString(r.ID)+" "+aws.ToString(r.Filter.Prefix)] = aws.ToInt32(r.Expiration.Days)
		}
	}
	return days
}

func TestBucketBootstrapTwice(t *testing.T) {
	t.Parallel()
	bucket, args := newBucket(t)
	for i, want := range []string{"there is the bucket", "the bucket " + bucket + " was there"} {
		out, err := script(t, "bucket-bootstrap", append(args, "--expire-days", strconv.Itoa(7*(i+1)))...)
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("%v: %s", err, out)
		}
	}
	days := lifecycle(t, bucket)
	if len(days) != 1 || days["podlane-expire podlane/"] != 14 {
		t.Errorf("got %v", days)
	}
}

func TestBucketBootstrapSparesRulesOfOthers(t *testing.T) {
	t.Parallel()
	bucket, args := newBucket(t)
	if out, err := script(t, "bucket-bootstrap", args...); err != nil {
		t.Fatal(out)
	}
	_, err := shared.S3.Client.PutBucketLifecycleConfiguration(t.Context(), &s3.PutBucketLifecycleConfigurationInput{
		Bucket: &bucket,
		LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{{
			ID: aws.String("logs"), Status: types.ExpirationStatusEnabled,
			Filter: &types.LifecycleRuleFilter{Prefix: aws.String("logs/")}, Expiration: &types.LifecycleExpiration{Days: aws.Int32(3)},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := script(t, "bucket-bootstrap", args...); err == nil || !strings.Contains(out, "lifecycle rules of others: logs;") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := script(t, "bucket-bootstrap", append(args, "--replace-lifecycle")...); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if days := lifecycle(t, bucket); days["podlane-expire podlane/"] != 14 || len(days) != 1 {
		t.Errorf("got %v", days)
	}
}

func TestBucketBootstrapVersioning(t *testing.T) {
	t.Parallel()
	bucket, args := newBucket(t)
	if out, err := script(t, "bucket-bootstrap", args...); err != nil {
		t.Fatal(out)
	}
	_, err := shared.S3.Client.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
		Bucket: &bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
	})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := script(t, "bucket-bootstrap", args...); err != nil || !strings.Contains(out, "warning: the bucket keeps old versions") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := script(t, "bucket-bootstrap", append(args, "--suspend-versioning")...); err != nil || !strings.Contains(out, "no more old versions") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestBucketBootstrapRefuses(t *testing.T) {
	t.Parallel()
	bucket, _ := newBucket(t)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "--bucket is missing"},
		{[]string{"--bucket", bucket, "--expire-days", "soon"}, `--expire-days is "soon"`},
		{[]string{"--bucket", bucket}, "no keys: set --key-file"},
		{[]string{"--bucket", bucket, "--endpoint", shared.S3.Endpoint, "--key-file", shared.Stack.S3RootPasswordFile}, "expected the access key and the secret key"},
	} {
		out, err := script(t, "bucket-bootstrap", tt.args...)
		if err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("%v: got %v, %s, want %q", tt.args, err, out, tt.want)
		}
	}
}

func TestBucketPrint(t *testing.T) {
	t.Parallel()
	out, err := script(t, "bucket-bootstrap", "--print", "--bucket", "b", "--region", "eu-central-1", "--suspend-versioning")
	if err != nil {
		t.Fatal(out)
	}
	for _, want := range []string{"LocationConstraint=eu-central-1", "put-public-access-block", "put-bucket-encryption", `"Days":14`, "DaysAfterInitiation", "Status=Suspended"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}
