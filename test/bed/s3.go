package bed

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"podlane/test/stack/stackenv"
)

// S3 is the stack's S3, as an administrator sees it. All beds share its bucket:
// objects of one begin with Prefix.
type S3 struct {
	Endpoint, Region, Bucket string
	// AccessKey and SecretKey may do everything.
	AccessKey, SecretKey string
	// Prefix is what all objects of the bed's GitLab begin with.
	Prefix string
	// Client is for what there is no method for.
	Client *s3.Client
}

// cachePrefix is cache.prefix.
const cachePrefix = "podlane"

func openS3(stack stackenv.Stack) (*S3, error) {
	secret, err := os.ReadFile(stack.S3RootPasswordFile)
	if err != nil {
		return nil, fmt.Errorf("find the test bed's S3: %w; hint: make up", err)
	}
	s := &S3{
		Endpoint: stack.S3Address, Region: stackenv.S3Region, Bucket: stackenv.S3Bucket,
		AccessKey: stackenv.S3RootUser, SecretKey: string(secret), Prefix: cachePrefix + "/",
	}
	s.Client = s.ClientWith(aws.Credentials{AccessKeyID: s.AccessKey, SecretAccessKey: s.SecretKey})
	return s, nil
}

// ClientWith returns a client that has these credentials alone.
func (s *S3) ClientWith(credentials aws.Credentials) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(s.Endpoint), Region: s.Region, UsePathStyle: true,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return credentials, nil }),
	})
}

// Object is what a listing says.
type Object struct {
	Key      string
	Size     int64
	ETag     string
	Modified time.Time
}

// Objects lists what begins with prefix, in the order of the names.
func (s *S3) Objects(ctx context.Context, prefix string) ([]Object, error) {
	var list []Object
	pages := s3.NewListObjectsV2Paginator(s.Client, &s3.ListObjectsV2Input{Bucket: &s.Bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, o := range page.Contents {
			list = append(list, Object{Key: *o.Key, Size: aws.ToInt64(o.Size), ETag: aws.ToString(o.ETag), Modified: aws.ToTime(o.LastModified)})
		}
	}
	return list, nil
}

// Uploads lists the keys of uploads that have not ended. MinIO lists those of one
// key only: prefix is the whole of it.
func (s *S3) Uploads(ctx context.Context, prefix string) ([]string, error) {
	answer, err := s.Client.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &s.Bucket, Prefix: &prefix})
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, u := range answer.Uploads {
		keys = append(keys, *u.Key)
	}
	return keys, nil
}

// Get reads an object.
func (s *S3) Get(ctx context.Context, key string) ([]byte, error) {
	answer, err := s.Client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.Bucket, Key: &key})
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}

// Put writes an object.
func (s *S3) Put(ctx context.Context, key string, content []byte) error {
	_, err := s.Client.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.Bucket, Key: &key, Body: bytes.NewReader(content)})
	return err
}

// Delete deletes an object.
func (s *S3) Delete(ctx context.Context, key string) error {
	_, err := s.Client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.Bucket, Key: &key})
	return err
}

// settings are podlane's, for this S3.
func (s *S3) settings() Settings {
	return Settings{"cache": {
		"endpoint": quote(s.Endpoint), "region": quote(s.Region), "bucket": quote(s.Bucket),
		"prefix": quote(cachePrefix), "path_style": "true",
	}}
}

func hasPrefix(name, prefix string) bool {
	return name == prefix || strings.HasPrefix(name, prefix+"-")
}
