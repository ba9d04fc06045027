package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// defaultCopySize is far below what S3 copies in one request, 5 GiB: that takes
// it longer than anybody wants to wait, and parts are copied at once.
const defaultCopySize = 256 << 20

// Refresh has the server write an object anew if it is older than age, so that
// the bucket's lifecycle counts from now; it reports whether that was done. An
// object that somebody else has just refreshed or replaced is left alone
// without an error. ErrUnsupported means that this server or the bucket's policy
// don't allow it.
//
// The object's ETag changes, and with it what presigned reads are pinned to: a
// restore should be over first, and one in another pod asks for a new URL.
func (s *Store) Refresh(ctx context.Context, o Object, age time.Duration) (bool, error) {
	if time.Since(o.Modified) < age {
		return false, nil
	}
	ctx, cancel := s.boundedLong(ctx)
	defer cancel()
	o.Meta.Refreshed = time.Now()
	var err error
	if o.Size > s.config.CopySize {
		err = s.copyInParts(ctx, o)
	} else {
		err = s.copyWhole(ctx, o)
	}
	var e *Error
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, ErrExists), errors.Is(err, ErrNotFound):
		return false, nil
	case errors.Is(err, ErrCredentials), errors.Is(err, ErrConfig):
	case errors.As(err, &e) && e.Status >= 400 && e.Status < 500:
		e.Kind = ErrUnsupported
	}
	return false, err
}

// source is an object as what is copied.
func (s *Store) source(o Object) *string {
	return aws.String((&url.URL{Path: s.config.Bucket + "/" + o.Name}).EscapedPath())
}

func (s *Store) copyWhole(ctx context.Context, o Object) error {
	_, err := s.client.CopyObject(ctx, &s3.CopyObjectInput{
		Bucket: &s.config.Bucket, Key: &o.Name, CopySource: s.source(o), CopySourceIfMatch: optional(o.ETag),
		// A copy onto itself has to change something.
		MetadataDirective: types.MetadataDirectiveReplace,
		Metadata:          o.Meta.encode(), ContentType: aws.String(contentType),
	})
	return s.explain(ctx, "refresh", o.Name, err)
}

func (s *Store) copyInParts(ctx context.Context, o Object) error {
	created, err := s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &s.config.Bucket, Key: &o.Name, Metadata: o.Meta.encode(), ContentType: aws.String(contentType),
	})
	if err != nil {
		return s.explain(ctx, "refresh", o.Name, err)
	}
	upload := Upload{Object: o.Name, ID: aws.ToString(created.UploadId)}
	parts := make([]types.CompletedPart, (o.Size+s.config.CopySize-1)/s.config.CopySize)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	free := make(chan struct{}, concurrency)
	var copies sync.WaitGroup
	for i := range parts {
		free <- struct{}{}
		copies.Go(func() {
			defer func() { <-free }()
			first := int64(i) * s.config.CopySize
			last := min(first+s.config.CopySize, o.Size) - 1
			out, err := s.client.UploadPartCopy(ctx, &s3.UploadPartCopyInput{
				Bucket: &s.config.Bucket, Key: &o.Name, UploadId: &upload.ID, PartNumber: aws.Int32(int32(i + 1)),
				CopySource: s.source(o), CopySourceIfMatch: optional(o.ETag), CopySourceRange: aws.String(fmt.Sprintf("bytes=%d-%d", first, last)),
			})
			if err != nil {
				cancel(s.explain(ctx, "refresh", o.Name, err))
				return
			}
			parts[i] = types.CompletedPart{ETag: out.CopyPartResult.ETag, PartNumber: aws.Int32(int32(i + 1))}
		})
	}
	copies.Wait()
	if err = context.Cause(ctx); err == nil {
		_, err = s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &s.config.Bucket, Key: &o.Name, UploadId: &upload.ID, IfMatch: optional(o.ETag),
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
		err = s.explain(ctx, "refresh", o.Name, err)
	}
	if err != nil {
		_ = s.Abort(context.WithoutCancel(ctx), upload)
	}
	return err
}
