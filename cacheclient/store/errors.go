package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrNotFound means that there is no such object, or that the server
	// doesn't say so to who may not list: see NotListed.
	ErrNotFound = errors.New("not found")
	// ErrDenied means that these credentials may not do that.
	ErrDenied = errors.New("access denied")
	// ErrCredentials means that the server doesn't accept the credentials as
	// such: unknown, expired, wrongly signed.
	ErrCredentials = errors.New("credentials are not accepted")
	// ErrConfig means that a setting is wrong: bucket, region, endpoint, CA.
	ErrConfig = errors.New("wrong settings")
	// ErrExists means that a condition of a write wasn't met.
	ErrExists = errors.New("written by somebody else")
	// ErrUnsupported means that this S3 server can't do that.
	ErrUnsupported = errors.New("not supported by the S3 server")
	// ErrRefused is any other answer that says no.
	ErrRefused = errors.New("refused by the S3 server")
	// ErrUnavailable means that the server can't be reached or did not recover
	// within all attempts.
	ErrUnavailable = errors.New("the S3 server is not available")
)

// Error is what went wrong with a call.
type Error struct {
	Op     string // "look up", "list"
	Object string // its name or what the names start with; may be empty
	Kind   error  // one of the above
	Status int    // 0 if there was no answer
	Code   string // S3's, if the answer has one
	Hint   string // what to do about it; may be empty
	cause  string
	err    error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Object != "" {
		b.WriteString(" " + e.Object)
	}
	fmt.Fprintf(&b, ": %v", e.Kind)
	if e.cause != "" && e.cause != e.Kind.Error() {
		b.WriteString(": " + e.cause)
	}
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error { return []error{e.Kind, e.err} }

// NotListed reports whether a missing object may be a forbidden one: without
// s3:ListBucket a server answers 403 for both.
func NotListed(err error) bool {
	var e *Error
	return errors.As(err, &e) && errors.Is(e.Kind, ErrNotFound) && e.Status == http.StatusForbidden
}

// explain makes an Error of the SDK's.
func (s *Store) explain(ctx context.Context, op, object string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	}
	e := &Error{Op: op, Object: object, err: err}
	var response *awshttp.ResponseError
	if errors.As(err, &response) && response.Response != nil {
		e.Status = response.HTTPStatusCode()
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		e.Code = api.ErrorCode()
	}
	if e.Status == 0 {
		s.explainSilence(ctx, e, err)
		return e
	}
	e.cause = fmt.Sprintf("%d %s", e.Status, e.Code)
	if e.Code == "" || e.Code == http.StatusText(e.Status) {
		e.cause = fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
	}
	s.explainCode(e, response)
	return e
}

// explainCode knows S3's error codes
// (docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html); where an
// answer has no body, the status has to do.
func (s *Store) explainCode(e *Error, response *awshttp.ResponseError) {
	switch e.Code {
	case "NoSuchBucket":
		e.Kind, e.Hint = ErrConfig, fmt.Sprintf("there is no bucket %s at %s: check cache.bucket", s.config.Bucket, s.where())
		return
	case "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException":
		e.Kind, e.Hint = ErrConfig, s.regionHint(response)
		return
	case "RequestTimeTooSkewed", "RequestExpired":
		e.Kind, e.Hint = ErrCredentials, "this machine's clock differs from the server's: "+clocks(response)
		return
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired":
		e.Kind, e.Hint = ErrCredentials, "they have expired"
		return
	case "InvalidAccessKeyId", "InvalidToken", "InvalidClientTokenId", "XAdminUserNotFound": // the last with 404: versitygw
		e.Kind, e.Hint = ErrCredentials, "the server does not know the access key: are they for "+s.where()+"?"
		return
	case "SignatureDoesNotMatch":
		e.Kind, e.Hint = ErrCredentials, "the secret key is wrong, or something between here and the server changes requests"
		return
	case "NotImplemented", "MethodNotAllowed", "XNotImplemented":
		e.Kind = ErrUnsupported
		return
	case "NoSuchKey", "NotFound", "NoSuchUpload":
		e.Kind = ErrNotFound
		return
	case "PreconditionFailed", "ConditionalRequestConflict":
		e.Kind = ErrExists
		return
	}
	switch {
	case e.Status == http.StatusMovedPermanently || e.Status == http.StatusTemporaryRedirect:
		e.Kind, e.Hint = ErrConfig, s.regionHint(response)
	case e.Status == http.StatusForbidden:
		e.Kind = ErrDenied
	case e.Status == http.StatusUnauthorized:
		e.Kind = ErrCredentials
	case e.Status == http.StatusNotFound && e.Code == "":
		e.Kind = ErrNotFound
	case e.Status == http.StatusPreconditionFailed || e.Status == http.StatusConflict:
		e.Kind = ErrExists
	case e.Status == http.StatusNotImplemented || e.Status == http.StatusMethodNotAllowed:
		e.Kind = ErrUnsupported
	case e.Status >= 500 || e.Status == http.StatusTooManyRequests:
		e.Kind = ErrUnavailable
	default:
		// Among them a 404 with a code that is not about objects: to take that
		// for a miss would hide what is wrong.
		e.Kind = ErrRefused
	}
}

func (s *Store) where() string {
	if s.config.Endpoint != "" {
		return s.config.Endpoint
	}
	return "AWS in " + s.config.Region
}

func (s *Store) regionHint(response *awshttp.ResponseError) string {
	if region := response.Response.Header.Get("X-Amz-Bucket-Region"); region != "" {
		return fmt.Sprintf("bucket %s is in region %s, not in %s: set cache.region", s.config.Bucket, region, s.config.Region)
	}
	return fmt.Sprintf("bucket %s is in another region than %s, or wants another endpoint: check cache.region and cache.endpoint", s.config.Bucket, s.config.Region)
}

func clocks(response *awshttp.ResponseError) string {
	if date := response.Response.Header.Get("Date"); date != "" {
		return "the server's says " + date
	}
	return "check both"
}

// retryable keeps the SDK from trying again what a setting is to blame for.
func retryable(err error) aws.Ternary {
	if wrongTLS(err) != "" {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

// wrongTLS returns what to do about a TLS connection that was not made, or "".
func wrongTLS(err error) string {
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &authority):
		return "the server's certificate is signed by an authority that is not known here: set cache.ca_file"
	case errors.As(err, &hostname):
		return "the server's certificate is for another name: check cache.endpoint and cache.path_style"
	case errors.As(err, &verify):
		return "check the server's certificate and this machine's clock"
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "the server speaks http, not https: check cache.endpoint"
	}
	return ""
}

// explainSilence is for calls that got no answer.
func (s *Store) explainSilence(ctx context.Context, e *Error, err error) {
	e.Kind, e.cause = ErrUnavailable, plain(err)
	var dns *net.DNSError
	switch hint := wrongTLS(err); {
	case hint != "":
		e.Kind, e.Hint = ErrConfig, hint
	case errors.As(err, &dns) && dns.IsNotFound:
		e.Kind, e.Hint = ErrConfig, "there is no such host: check cache.endpoint, cache.region and cache.path_style"
	case fromCredentials(err):
		e.Kind = ErrCredentials
	case ctx.Err() != nil:
		e.cause = context.Cause(ctx).Error()
	}
}

// fromCredentials reports whether the credentials' source has failed, so that
// nothing was sent.
func fromCredentials(err error) bool {
	var signing interface{ SigningError() bool }
	return errors.As(err, &signing) || strings.Contains(err.Error(), "failed to refresh cached credentials") || strings.Contains(err.Error(), "get identity:")
}

// operation is what the SDK puts in front of an error; for people it says
// nothing that ours doesn't.
var operation = regexp.MustCompile(`^operation error S3: \w+, (exceeded maximum number of attempts, \d+, )?(https response error StatusCode: \d+, RequestID: [^,]*, HostID: [^,]*, )?(request send failed, )?`)

// plain returns an error's message without the SDK's frame and without an
// address, which may hold a signature.
func plain(err error) string {
	var attempts *retry.MaxAttemptsError
	prefix := ""
	if errors.As(err, &attempts) {
		prefix = fmt.Sprintf("after %d attempts: ", attempts.Attempt)
	}
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		return prefix + urlErr.Err.Error()
	}
	return prefix + operation.ReplaceAllString(err.Error(), "")
}
