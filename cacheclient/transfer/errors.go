package transfer

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Errors that callers tell apart. Everything else is a server or a network that
// did not get better in time.
var (
	// ErrChanged means that the object is not any more what it was when the
	// restore began: replaced, or shorter than it should be.
	ErrChanged = errors.New("the cache changed while it was read")
	// ErrGone means that the object or the upload isn't there any more.
	ErrGone = errors.New("not there any more")
	// ErrRefused means that the server refuses a presigned request, and its
	// successor, too.
	ErrRefused = errors.New("the S3 server refuses the presigned request")
	// ErrStalled means that nothing moved for too long.
	ErrStalled = errors.New("no byte moved")
)

// A failure is an attempt's error together with what to do about it.
type failure struct {
	err   error
	retry bool // the same again may work
	renew bool // the request has to be signed anew first; that is done once
	after time.Duration
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func permanent(err error) *failure { return &failure{err: err} }
func passing(err error) *failure   { return &failure{err: err, retry: true} }

// statusFailure classifies an answer that is not a success
// (docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html) and reads, but
// does not close, its body.
func statusFailure(resp *http.Response) *failure {
	said := whatWasSaid(resp)
	f := &failure{err: fmt.Errorf("%s answered %s", resp.Request.URL.Host, said.text)}
	switch code := resp.StatusCode; {
	// An expired token is 400 on AWS and 403 on MinIO; so is a clock that is off.
	case code == http.StatusUnauthorized, code == http.StatusForbidden, said.code == "ExpiredToken", said.code == "InvalidToken":
		f.renew = true
		f.err = fmt.Errorf("%w: %w", ErrRefused, f.err)
	case code == http.StatusNotFound:
		f.err = fmt.Errorf("%w: %w", ErrGone, f.err)
	case code == http.StatusPreconditionFailed:
		// A refresh gives the same bytes another ETag: the signer knows.
		f.renew = true
		f.err = fmt.Errorf("%w: %w", ErrChanged, f.err)
	case code == http.StatusRequestedRangeNotSatisfiable:
		f.err = fmt.Errorf("%w: it is shorter than it should be: %w", ErrChanged, f.err)
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500 && code != http.StatusNotImplemented,
		said.code == "RequestTimeout", said.code == "SlowDown", said.code == "IncompleteBody":
		f.retry = true
		f.after = retryAfter(resp.Header)
	}
	return f
}

type answer struct{ code, text string }

// whatWasSaid returns an answer's status and its S3 error code. Nothing else of
// the body: of a wrong signature it says everything that was signed.
func whatWasSaid(resp *http.Response) answer {
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	var s3 struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
	}
	if err != nil || xml.Unmarshal(body, &s3) != nil || s3.Code == "" {
		return answer{text: resp.Status}
	}
	return answer{code: s3.Code, text: fmt.Sprintf("%d %s", resp.StatusCode, strconv.QuoteToASCII(s3.Code)[1:len(strconv.QuoteToASCII(s3.Code))-1])}
}

// maxRetryAfter bounds what a server may make us wait.
const maxRetryAfter = 20 * time.Second

func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}

// withoutURL strips a request's address, which holds a signature, from an error.
func withoutURL(err error) error {
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		return urlErr.Err
	}
	return err
}
