// Package store is the runner's side of a bucket with caches: it looks entries
// up, signs what pods may do with them, and completes, refreshes and deletes.
// It holds the credentials; pods never see it.
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
	"os"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"podlane/internal/redact"
)

// Config says where the bucket is. What is empty is not looked for in the
// environment or in files of the AWS SDK, except for what [DefaultChain] says.
type Config struct {
	// Endpoint is the URL of an S3 server; empty means AWS.
	Endpoint string
	// Region is the bucket's; empty means us-east-1 with an endpoint, and the
	// default chain's without.
	Region string
	Bucket string
	// PathStyle puts the bucket's name into the path and not into the host.
	PathStyle bool
	// CAFile holds certificates in PEM that the server's is checked against,
	// beside the system's.
	CAFile string
	// Proxy as in http.Transport; nil means none.
	Proxy func(*http.Request) (*url.URL, error)
	// Timeout bounds one call with all its attempts: 1 min.
	Timeout time.Duration
	// Attempts is how often a request is sent at most: 5.
	Attempts int
	// PageSize is how many names one answer to a list may hold; 0 means as many
	// as the server sends, 1,000.
	PageSize int
	// CopySize is how much of an object one request has the server copy at most:
	// 256 MiB.
	CopySize int64
	// UserAgent is appended to the SDK's.
	UserAgent string
}

const (
	defaultTimeout  = time.Minute
	defaultAttempts = 5
	maxBackoff      = 5 * time.Second
	dialTimeout     = 10 * time.Second
	// headerTimeout is generous: completing an upload of many parts takes some
	// servers long.
	headerTimeout = time.Minute
	// longCall bounds calls that make the server copy: Complete and Refresh.
	longCall = 5 * time.Minute
)

// Credentials are what a request is signed with.
type Credentials struct {
	AccessKey    string
	SecretKey    redact.Secret
	SessionToken redact.Secret
	// Expires is zero if they don't.
	Expires time.Time
}

// Source gets credentials. It is called when there are none yet and again
// before they expire.
type Source func(ctx context.Context) (Credentials, error)

// Fixed is a source of credentials that one already has.
func Fixed(c Credentials) Source {
	return func(context.Context) (Credentials, error) { return c, nil }
}

// DefaultChain stands for what the AWS SDK finds in the environment, in its
// shared files, in a web identity token or at the instance's metadata service:
// for installations without Vault.
var DefaultChain Source

// Store is a bucket. Any number of goroutines may use it.
type Store struct {
	config      Config
	client      *s3.Client
	presign     *s3.PresignClient
	credentials aws.CredentialsProvider
	transport   *http.Transport
	date        atomic.Pointer[time.Time]
}

// expiryWindow is how long before their end credentials are replaced.
const expiryWindow = time.Minute

// Open returns the bucket's store without asking the server anything; Close it.
func Open(ctx context.Context, c Config, source Source) (*Store, error) {
	if c.Bucket == "" {
		return nil, errors.New("no bucket: set cache.bucket")
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.Attempts <= 0 {
		c.Attempts = defaultAttempts
	}
	if c.CopySize <= 0 {
		c.CopySize = defaultCopySize
	}
	transport, err := newTransport(c)
	if err != nil {
		return nil, err
	}
	s := &Store{config: c, transport: transport}
	httpClient := &http.Client{
		Transport: dated{transport, &s.date},
		// A signature is valid for one host; see explain for what is made of a 301.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if source == nil {
		if err := s.useDefaultChain(ctx); err != nil {
			return nil, err
		}
	} else {
		s.credentials = provider{source}
	}
	if s.config.Region == "" {
		s.config.Region = "us-east-1"
	}
	s.credentials = aws.NewCredentialsCache(s.credentials, func(o *aws.CredentialsCacheOptions) {
		o.ExpiryWindow = expiryWindow
	})
	s.client = s3.New(s3.Options{
		AppID:        s.config.UserAgent,
		Region:       s.config.Region,
		BaseEndpoint: optional(c.Endpoint),
		UsePathStyle: c.PathStyle,
		Credentials:  s.credentials,
		HTTPClient:   httpClient,
		// Archives carry digests of their own, and several S3 servers refuse
		// requests with the SDK's checksums.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts, o.MaxBackoff = c.Attempts, maxBackoff
			o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(retryable)}, o.Retryables...)
		}),
	})
	s.presign = s3.NewPresignClient(s.client)
	return s, nil
}

// Close drops idle connections.
func (s *Store) Close() { s.transport.CloseIdleConnections() }

// Bucket returns the bucket's name.
func (s *Store) Bucket() string { return s.config.Bucket }

func newTransport(c Config) (*http.Transport, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("cache.ca_file: %w", err)
		}
		if tlsConfig.RootCAs, err = x509.SystemCertPool(); err != nil {
			tlsConfig.RootCAs = x509.NewCertPool()
		}
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("cache.ca_file: %s: found no certificate, expected PEM", c.CAFile)
		}
	}
	return &http.Transport{
		Proxy:                 c.Proxy,
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: headerTimeout,
		TLSClientConfig:       tlsConfig,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   concurrency,
		IdleConnTimeout:       time.Minute,
	}, nil
}

// Date is the server's clock in its last answer, to the second; zero if it has
// not answered yet.
func (s *Store) Date() time.Time {
	if date := s.date.Load(); date != nil {
		return *date
	}
	return time.Time{}
}

// dated remembers the clock of whoever answers.
type dated struct {
	http.RoundTripper
	date *atomic.Pointer[time.Time]
}

// RoundTrip implements http.RoundTripper.
func (d dated) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := d.RoundTripper.RoundTrip(req)
	if err == nil {
		if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			d.date.Store(&date)
		}
	}
	return resp, err
}

// concurrency is how many requests of one call are under way at once at most.
const concurrency = 8

// useDefaultChain leaves the chain its own HTTP client: AWS_CA_BUNDLE changes
// that one, and is an error with any other.
func (s *Store) useDefaultChain(ctx context.Context) error {
	c, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return fmt.Errorf("find AWS credentials: %w", err)
	}
	s.credentials = c.Credentials
	if s.config.Region == "" && s.config.Endpoint == "" {
		s.config.Region = c.Region
	}
	return nil
}

// provider makes a source one of the SDK's.
type provider struct{ source Source }

func (p provider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := p.source(ctx)
	if err != nil {
		return aws.Credentials{}, err
	}
	return aws.Credentials{
		AccessKeyID: c.AccessKey, SecretAccessKey: c.SecretKey.Reveal(), SessionToken: c.SessionToken.Reveal(),
		CanExpire: !c.Expires.IsZero(), Expires: c.Expires, Source: "podlane",
	}, nil
}

// bounded gives a call its deadline.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, s.config.Timeout, fmt.Errorf("no answer from the S3 server within %v", s.config.Timeout))
}

func (s *Store) boundedLong(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := max(longCall, s.config.Timeout)
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer from the S3 server within %v", limit))
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
