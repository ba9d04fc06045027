package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"podlane/cacheclient/transfer"
)

// Mode says what a write does with an object that is there already.
type Mode int

// The modes.
const (
	// Once leaves it alone: the first write wins.
	Once Mode = iota
	// Replace replaces it: the last write wins.
	Replace
)

// Outcome is how a write ended that did not fail.
type Outcome struct {
	// Written says that the object is ours now. Otherwise somebody else's
	// write came first, which is as good.
	Written bool
	// Warning is set if the server does not know conditional writes: then two
	// jobs that write at the same time may both believe to be the first.
	Warning string
}

// Upload is a multipart upload under way. It may be stored as JSON and
// completed or aborted by another process.
type Upload struct {
	Object string `json:"object"`
	ID     string `json:"id"`
	Token  string `json:"token"`
}

const noConditions = "the S3 server does not know conditional writes"

const contentType = "application/zstd"

// CreateUpload begins a multipart upload. The object appears, with this
// metadata, when it is completed.
func (s *Store) CreateUpload(ctx context.Context, name string, meta Meta) (Upload, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	meta.upload = rand.Text()
	out, err := s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &s.config.Bucket, Key: &name, Metadata: meta.encode(),
		ContentType: aws.String(contentType),
	})
	if err != nil {
		return Upload{}, s.explain(ctx, "begin upload of", name, err)
	}
	return Upload{Object: name, ID: aws.ToString(out.UploadId), Token: meta.upload}, nil
}

// Complete makes an upload's parts, all of them in order, the object. Where
// somebody else was first, the upload is aborted.
func (s *Store) Complete(ctx context.Context, u Upload, parts []transfer.Done, mode Mode) (Outcome, error) {
	ctx, cancel := s.boundedLong(ctx)
	defer cancel()
	completed := make([]types.CompletedPart, len(parts))
	for i, p := range parts {
		completed[i] = types.CompletedPart{ETag: aws.String(p.ETag), PartNumber: aws.Int32(int32(p.Number))}
	}
	outcome, err := s.write(ctx, u.Object, u.Token, mode, func(condition *string) error {
		_, err := s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &s.config.Bucket, Key: &u.Object, UploadId: &u.ID, IfNoneMatch: condition,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: completed},
		})
		return s.explain(ctx, "complete upload of", u.Object, err)
	})
	if err == nil && !outcome.Written {
		// Some servers keep it then. The lifecycle would take it away, too.
		_ = s.Abort(ctx, u)
	}
	return outcome, err
}

// Abort ends an upload and frees its parts. That there is none is no error.
func (s *Store) Abort(ctx context.Context, u Upload) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.config.Bucket, Key: &u.Object, UploadId: &u.ID})
	if err = s.explain(ctx, "abort upload of", u.Object, err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Unfinished is an upload that was neither completed nor aborted.
type Unfinished struct {
	Upload
	Begun time.Time
}

// Uploads returns those of objects whose names start with prefix. It ends after
// the first error. MinIO names none, and takes them away by itself after a day.
func (s *Store) Uploads(ctx context.Context, prefix string) iter.Seq2[Unfinished, error] {
	return func(yield func(Unfinished, error) bool) {
		ask := s3.ListMultipartUploadsInput{Bucket: &s.config.Bucket, Prefix: &prefix}
		for {
			page, err := s.uploads(ctx, &ask)
			if err != nil {
				yield(Unfinished{}, err)
				return
			}
			for _, u := range page.Uploads {
				if !yield(Unfinished{Upload{Object: aws.ToString(u.Key), ID: aws.ToString(u.UploadId)}, aws.ToTime(u.Initiated)}, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) {
				return
			}
			ask.KeyMarker, ask.UploadIdMarker = page.NextKeyMarker, page.NextUploadIdMarker
		}
	}
}

func (s *Store) uploads(ctx context.Context, ask *s3.ListMultipartUploadsInput) (*s3.ListMultipartUploadsOutput, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	page, err := s.client.ListMultipartUploads(ctx, ask)
	err = s.explain(ctx, "list uploads of", *ask.Prefix, err)
	var e *Error
	if errors.As(err, &e) && errors.Is(e, ErrDenied) {
		e.Hint = "that needs s3:ListBucketMultipartUploads for the bucket"
	}
	return page, err
}

// Put writes a small object in one request.
func (s *Store) Put(ctx context.Context, name string, data []byte, meta Meta, mode Mode) (Outcome, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	meta.upload = rand.Text()
	return s.write(ctx, name, meta.upload, mode, func(condition *string) error {
		_, err := s.client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &s.config.Bucket, Key: &name, Metadata: meta.encode(), IfNoneMatch: condition,
			Body: bytes.NewReader(data), ContentLength: aws.Int64(int64(len(data))), ContentType: aws.String(contentType),
		})
		return s.explain(ctx, "write", name, err)
	})
}

// write sends a write under its condition and finds out what a refusal means.
func (s *Store) write(ctx context.Context, name, token string, mode Mode, send func(condition *string) error) (Outcome, error) {
	var condition *string
	if mode == Once {
		condition = aws.String("*")
	}
	err := send(condition)
	switch {
	case err == nil:
		return Outcome{Written: true}, nil
	case mode == Once && (errors.Is(err, ErrUnsupported) || altered(err)):
		return s.writeUnconditionally(ctx, name, token, send)
	case mode == Once && errors.Is(err, ErrExists), errors.Is(err, ErrNotFound):
		// An attempt whose answer was lost may have been the write that came
		// first, or the one that used the upload up.
		there, headErr := s.Head(ctx, name)
		switch {
		case headErr == nil && there.Meta.upload == token:
			return Outcome{Written: true}, nil
		case errors.Is(err, ErrExists):
			return Outcome{}, nil
		}
	}
	return Outcome{}, err
}

// altered reports whether the server may have seen another request than was
// signed: there are proxies that take conditions out. If the credentials are to
// blame, they will be again.
func altered(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case "SignatureDoesNotMatch":
		return true
	case "AccessDenied": // what MinIO says, but with 403 where it is about rights
		return e.Status == http.StatusBadRequest
	case "", http.StatusText(http.StatusForbidden): // the answer's body was lost
		return e.Status == http.StatusForbidden
	}
	return false
}

func (s *Store) writeUnconditionally(ctx context.Context, name, token string, send func(condition *string) error) (Outcome, error) {
	there, err := s.Head(ctx, name)
	switch {
	case err == nil:
		return Outcome{Written: there.Meta.upload == token, Warning: noConditions}, nil
	case !errors.Is(err, ErrNotFound):
		return Outcome{}, err
	}
	if err := send(nil); err != nil {
		return Outcome{}, err
	}
	return Outcome{Written: true, Warning: noConditions}, nil
}

// Capabilities are what servers differ in.
type Capabilities struct {
	// ConditionalWrites says that of two writes with Once the server itself
	// lets one win.
	ConditionalWrites bool
}

// Probe finds out what the server can do by writing and deleting a small object
// in dir, which the credentials have to allow.
func (s *Store) Probe(ctx context.Context, dir string) (Capabilities, error) {
	name := dir + ".probe-" + rand.Text()
	meta := Meta{Created: time.Now()}
	first, err := s.Put(ctx, name, []byte("1"), meta, Once)
	if err != nil {
		return Capabilities{}, err
	}
	second, err := s.Put(ctx, name, []byte("2"), meta, Once)
	// Whatever the second says, the first is there.
	err = errors.Join(err, s.Delete(context.WithoutCancel(ctx), name))
	return Capabilities{ConditionalWrites: first.Warning == "" && second.Warning == "" && !second.Written}, err
}
