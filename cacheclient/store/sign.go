package store

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"podlane/cacheclient/transfer"
	"podlane/internal/redact"
)

// Signed is a request that a pod may send, and until when.
type Signed struct {
	transfer.Request
	Expires time.Time
}

// SignRead signs reading any range of an object, in the version that o.ETag
// names and no other, for as long as life and the credentials last. It sends
// nothing.
func (s *Store) SignRead(ctx context.Context, o Object, life time.Duration) (Signed, error) {
	return s.sign(ctx, "sign reading of", o.Name, life, func(ctx context.Context, life func(*s3.PresignOptions)) (*v4.PresignedHTTPRequest, error) {
		return s.presign.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &s.config.Bucket, Key: &o.Name, IfMatch: optional(o.ETag)}, life)
	})
}

// SignPart signs writing one part, numbered from 1, of exactly size bytes.
func (s *Store) SignPart(ctx context.Context, u Upload, number int, size int64, life time.Duration) (Signed, error) {
	return s.sign(ctx, "sign a part of", u.Object, life, func(ctx context.Context, life func(*s3.PresignOptions)) (*v4.PresignedHTTPRequest, error) {
		return s.presign.PresignUploadPart(ctx, &s3.UploadPartInput{
			Bucket: &s.config.Bucket, Key: &u.Object, UploadId: &u.ID, PartNumber: aws.Int32(int32(number)), ContentLength: &size,
		}, life)
	})
}

func (s *Store) sign(ctx context.Context, op, object string, life time.Duration,
	presign func(context.Context, func(*s3.PresignOptions)) (*v4.PresignedHTTPRequest, error),
) (Signed, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	c, err := s.credentials.Retrieve(ctx)
	if err != nil {
		return Signed{}, &Error{Op: op, Object: object, Kind: ErrCredentials, cause: plain(err), err: err}
	}
	expires := time.Now().Add(life)
	if c.CanExpire && c.Expires.Before(expires) {
		expires = c.Expires
	}
	request, err := presign(ctx, s3.WithPresignExpires(time.Until(expires)))
	if err != nil {
		return Signed{}, s.explain(ctx, op, object, err)
	}
	return Signed{Request: transfer.Request{URL: redact.New(request.URL), Header: request.SignedHeader}, Expires: expires}, nil
}

// Transfer is how to reach the server with signed requests from here.
func (s *Store) Transfer() transfer.Config {
	return transfer.Config{CAs: s.transport.TLSClientConfig.RootCAs, Proxy: s.transport.Proxy, UserAgent: s.config.UserAgent}
}
