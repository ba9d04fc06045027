package artifacts

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"podlane/internal/joblog"
	"podlane/internal/version"
)

// tokenHeader carries the job's token (gitlab-runner network/gitlab.go).
const tokenHeader = "Job-Token"

// client speaks with GitLab about one job's artifacts.
type client struct {
	http     *http.Client
	token    string
	endpoint *url.URL // .../api/v4/jobs/<id>/artifacts
}

// newClient returns a client that takes at most timeout for one request, the
// body included, and at most headerTimeout from the last byte sent to the
// answer. The client follows no redirect on its own.
func newClient(c credentials, timeout, headerTimeout time.Duration, log lines) (*client, error) {
	endpoint, err := artifactsURL(c.url, c.id)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment, // HTTPS_PROXY and the like, as the runner has it
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       tlsConfig(c, log),
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: headerTimeout,
		ExpectContinueTimeout: time.Second,
	}
	return &client{
		http: &http.Client{
			Transport:     transport,
			Timeout:       timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		token:    c.token,
		endpoint: endpoint,
	}, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// artifactsURL is where a job's artifacts live. GitLab may live below a path.
func artifactsURL(base string, id int64) (*url.URL, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("--url is not the address of a GitLab: expected https://host or http://host")
	}
	// Old configurations have /ci at the end; the runner strips it, too.
	prefix := strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/ci")
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: fmt.Sprintf("%s/api/v4/jobs/%d/artifacts", prefix, id)}, nil
}

func tlsConfig(c credentials, log lines) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.caFile != "" {
		pool, err := trustedWith(c.caFile)
		if err != nil {
			log.warn("CA file is not used: %v", err)
		}
		config.RootCAs = pool
	}
	if c.certFile != "" && c.keyFile != "" {
		pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
		if err != nil {
			log.warn("client certificate is not used: %v", err)
		} else {
			config.Certificates = []tls.Certificate{pair}
		}
	}
	return config
}

// trustedWith returns the system's certificates and those in a PEM file.
func trustedWith(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: found no certificate, expected PEM", file)
	}
	return pool, nil
}

func (c *client) request(ctx context.Context, method string, to *url.URL, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, to.String(), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "podlane "+version.String())
	if c.trusts(to) {
		req.Header.Set(tokenHeader, c.token)
	}
	return req, nil
}

// trusts reports whether the job's token may be sent to an address: GitLab's
// own, or one that GitLab redirected us to if that is the same API on another
// host, a primary site for instance. An object storage's address is not, nor is
// an unencrypted one if GitLab's is encrypted.
func (c *client) trusts(to *url.URL) bool {
	if to.Scheme != c.endpoint.Scheme && to.Scheme != "https" {
		return false
	}
	return to.Path == c.endpoint.Path
}

// maxRedirects is far above what GitLab and a storage behind it need: two.
const maxRedirects = 5

// redirect returns where an answer points to.
func (c *client) redirect(resp *http.Response) (*url.URL, error) {
	to, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("%s answered %s without a usable location", resp.Request.URL.Host, resp.Status)
	}
	switch {
	case to.Scheme == "https":
		return to, nil
	case to.Scheme == "http" && resp.Request.URL.Scheme == "http":
		return to, nil
	default:
		return nil, fmt.Errorf("%s redirects to %s://%s: not followed, expected https", resp.Request.URL.Host, to.Scheme, to.Host)
	}
}

// do sends a request. Errors name the host, but neither address nor query: a
// redirect's query holds a signature.
func (c *client) do(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err == nil {
		return resp, nil
	}
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		// A connection that could not be made says so itself, and earlier.
		var dial *net.OpError
		connected := !errors.As(urlErr.Err, &dial) || dial.Op != "dial"
		if connected && urlErr.Timeout() && errors.Is(urlErr.Err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("%s: no answer within %v", req.URL.Host, c.http.Timeout)
		}
		err = urlErr.Err
	}
	return nil, fmt.Errorf("%s: %w", req.URL.Host, err)
}

// maxMessage bounds how much of an error's body is read.
const maxMessage = 64 << 10

// message returns what the server said: the status and, if there is one, the
// message of GitLab's JSON or an object storage's XML.
func message(resp *http.Response) string {
	if resp.StatusCode < 300 {
		return resp.Status
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
	if err != nil {
		return resp.Status
	}
	var fromGitLab struct {
		Message any    `json:"message"`
		Error   string `json:"error"`
	}
	var fromStorage struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}
	text := ""
	switch {
	case json.Unmarshal(body, &fromGitLab) == nil && fromGitLab.Message != nil:
		text = fmt.Sprint(fromGitLab.Message)
	case fromGitLab.Error != "":
		text = fromGitLab.Error
	case xml.Unmarshal(body, &fromStorage) == nil:
		text = strings.TrimSpace(fromStorage.Code + " " + fromStorage.Message)
	}
	if text == "" || strings.EqualFold(text, resp.Status) {
		return resp.Status
	}
	return resp.Status + " (" + joblog.OneLine(text) + ")"
}

// discard ends an exchange so that the connection can be used again.
func discard(resp *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxMessage))
	_ = resp.Body.Close()
}

// requestID is the id that GitLab's own logs have for a request.
func requestID(resp *http.Response) string {
	if id := resp.Header.Get("X-Request-Id"); id != "" {
		return " correlation_id=" + id
	}
	return ""
}

// buffered reads the part of a body that [message] may want and ends the
// exchange.
func buffered(resp *http.Response) (*http.Response, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
	if err != nil && resp.StatusCode < 300 {
		return nil, fmt.Errorf("%s: read the answer: %w", resp.Request.URL.Host, err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}
