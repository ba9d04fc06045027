package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Object is an object of the bucket.
type Object struct {
	Name string
	Size int64
	ETag string
	// Modified is when it was written or refreshed, to the second.
	Modified time.Time
	// Meta is empty in lists.
	Meta Meta
}

// Head returns an object's facts. If there is none, the error is ErrNotFound;
// NotListed tells whether the server only refused to say.
func (s *Store) Head(ctx context.Context, name string) (Object, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.config.Bucket, Key: &name})
	if err == nil {
		return Object{
			Name: name, Size: aws.ToInt64(out.ContentLength), ETag: aws.ToString(out.ETag),
			Modified: aws.ToTime(out.LastModified), Meta: decodeMeta(out.Metadata),
		}, nil
	}
	err = s.explain(ctx, "look up", name, err)
	var e *Error
	if !errors.As(err, &e) || e.Status < 300 || e.Status >= 500 {
		return Object{}, err
	}
	return Object{}, s.askAgain(ctx, name, e)
}

// askAgain finds out what an answer to HEAD means, which has no body to say it:
// a missing bucket is 404 like a missing object, and a wrong access key is 403
// like an object that is not there and may not be listed.
func (s *Store) askAgain(ctx context.Context, name string, head *Error) error {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.config.Bucket, Key: &name, Range: aws.String("bytes=0-0")})
	if err == nil {
		// It may be read, or was written just now.
		out.Body.Close()
		if errors.Is(head, ErrDenied) {
			head.Hint = "it may be read, but HEAD is refused: does a proxy do that?"
		}
		return head
	}
	var e *Error
	if !errors.As(s.explain(ctx, "look up", name, err), &e) || e.Status == 0 {
		return head
	}
	if errors.Is(e, ErrDenied) {
		// Documented for GetObject and HeadObject: without s3:ListBucket, what
		// isn't there is 403.
		e.Kind, e.Hint = ErrNotFound, "or it may not be read: without s3:ListBucket the server does not tell one from the other"
	}
	return e
}

// List returns the objects whose names start with prefix, in no order that
// means anything. It ends after the first error.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &s.config.Bucket, Prefix: &prefix}, func(o *s3.ListObjectsV2PaginatorOptions) {
			o.Limit = int32(s.config.PageSize)
		})
		for pages.HasMorePages() {
			page, err := s.page(ctx, pages, prefix)
			if err != nil {
				yield(Object{}, err)
				return
			}
			for _, o := range page.Contents {
				if !yield(Object{Name: aws.ToString(o.Key), Size: aws.ToInt64(o.Size), ETag: aws.ToString(o.ETag), Modified: aws.ToTime(o.LastModified)}, nil) {
					return
				}
			}
		}
	}
}

func (s *Store) page(ctx context.Context, pages *s3.ListObjectsV2Paginator, prefix string) (*s3.ListObjectsV2Output, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	page, err := pages.NextPage(ctx)
	err = s.explain(ctx, "list", prefix, err)
	var e *Error
	if errors.As(err, &e) && errors.Is(e, ErrDenied) {
		e.Hint = "listing needs s3:ListBucket for this prefix"
	}
	return page, err
}

// newer orders objects by when they were written or refreshed. Of several from
// the same second any may be the newest, but always the same.
func newer(a, b Object) int {
	return cmp.Or(a.Modified.Compare(b.Modified), strings.Compare(a.Name, b.Name))
}

// ReadRange opens n bytes of an object from an offset on, of the version with
// that ETag. It is for short reads by people's commands: pods read with package
// transfer.
func (s *Store) ReadRange(ctx context.Context, o Object, offset, n int64) (io.ReadCloser, error) {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &s.config.Bucket, Key: &o.Name, IfMatch: optional(o.ETag),
		Range: aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+n-1)),
	})
	if err != nil {
		return nil, s.explain(ctx, "read", o.Name, err)
	}
	return out.Body, nil
}

// Delete removes an object. That there is none is no error.
func (s *Store) Delete(ctx context.Context, name string) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.config.Bucket, Key: &name})
	if err = s.explain(ctx, "delete", name, err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
