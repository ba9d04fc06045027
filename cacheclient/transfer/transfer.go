// Package transfer moves a cache's bytes between a pod and S3. It holds no
// credentials: a [Signer] on the other side of some channel makes presigned
// requests for exactly the object and the parts that are moved.
package transfer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"podlane/internal/redact"
)

// Request is a presigned request. Whoever has it can do what it says until it
// runs out, so its URL is a secret.
type Request struct {
	URL redact.Secret
	// Header was signed along and has to be sent.
	Header http.Header
}

// Signer makes presigned requests. Its methods are called by several goroutines
// at once and take as long as the way to the signer does. renew says that the
// answer before this one was refused or has run out: the signer then makes a
// new one, or says why there is none any more.
type Signer interface {
	// Read returns a request that reads the object, pinned to the version that
	// the restore began with. It is sent with different ranges, and again and
	// again.
	Read(ctx context.Context, renew bool) (Request, error)
	// Part returns a request that writes one part of the upload, of exactly
	// size bytes.
	Part(ctx context.Context, number int, size int64, renew bool) (Request, error)
}

// Config says how to reach the S3 server. Zero values mean the defaults.
type Config struct {
	// CAs are what the server's certificate is checked against; nil means the
	// system's.
	CAs *x509.CertPool
	// Proxy as in http.Transport; nil means none.
	Proxy func(*http.Request) (*url.URL, error)
	// Connections are kept open for further requests: at least as many as there
	// are requests at once, or most of them would dial anew. 16.
	Connections int
	// Stall ends an attempt when no byte has moved for that long: 30 s.
	Stall time.Duration
	// Attempts is how many attempts in a row may move nothing worth
	// mentioning: 6.
	Attempts int
	// Backoff is the wait after the first failure: 250 ms. It doubles up to
	// 40 times that, with jitter.
	Backoff time.Duration
	// Notify is told in one line why something is tried again; nil means that
	// nobody is.
	Notify func(format string, args ...any)
	// UserAgent is what the server's access log shows.
	UserAgent string
}

const (
	defaultConnections = 16
	defaultStall       = 30 * time.Second
	defaultAttempts    = 6
	defaultBackoff     = 250 * time.Millisecond
	dialTimeout        = 10 * time.Second
)

// Client moves bytes. Any number of transfers may use it at once.
type Client struct {
	config Config
	http   *http.Client
	counts Counts
}

// Counts are what a client has done so far; any goroutine may read them.
type Counts struct {
	Requests atomic.Int64
	Retries  atomic.Int64 // requests that followed a failure
	Read     atomic.Int64 // bytes of objects
	Written  atomic.Int64 // bytes of parts, those sent again included
}

// New returns a client; Close it.
func New(c Config) *Client {
	defaults(&c)
	return &Client{
		config: c,
		http: &http.Client{
			Transport: &http.Transport{
				Proxy:               c.Proxy,
				DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
				TLSHandshakeTimeout: dialTimeout,
				TLSClientConfig: &tls.Config{
					MinVersion: tls.VersionTLS12, RootCAs: c.CAs,
					ClientSessionCache: tls.NewLRUClientSessionCache(c.Connections),
				},
				// HTTP/2 would send everything through one connection, which on
				// S3 and behind most shapers has a speed limit of its own.
				TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{},
				MaxIdleConnsPerHost: c.Connections,
				MaxIdleConns:        c.Connections,
				IdleConnTimeout:     time.Minute,
				// For uploads that are tried again: see Uploader.
				ExpectContinueTimeout: 5 * time.Second,
				DisableCompression:    true,
				ReadBufferSize:        64 << 10,
				WriteBufferSize:       64 << 10,
			},
			// A signature is valid for one host only.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func defaults(c *Config) {
	if c.Connections <= 0 {
		c.Connections = defaultConnections
	}
	if c.Stall <= 0 {
		c.Stall = defaultStall
	}
	if c.Attempts <= 0 {
		c.Attempts = defaultAttempts
	}
	if c.Backoff <= 0 {
		c.Backoff = defaultBackoff
	}
	if c.Notify == nil {
		c.Notify = func(string, ...any) {}
	}
	if c.UserAgent == "" {
		c.UserAgent = "podlane-helper"
	}
}

// Counts returns the client's counters.
func (c *Client) Counts() *Counts { return &c.counts }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) newRequest(ctx context.Context, method string, signed Request) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, signed.URL.Reveal(), nil)
	if err != nil {
		return nil, fmt.Errorf("presigned request: %w", withoutURL(err))
	}
	for name, values := range signed.Header {
		if http.CanonicalHeaderKey(name) != "Host" {
			req.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	req.Header.Set("User-Agent", c.config.UserAgent)
	return req, nil
}

// do sends a request. Errors say neither address nor signature.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	c.counts.Requests.Add(1)
	resp, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(req.Context()); cause != nil {
			return nil, cause
		}
		return nil, fmt.Errorf("%s: %w", req.URL.Host, withoutURL(err))
	}
	return resp, nil
}
