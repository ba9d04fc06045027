package vaultauth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"time"
)

// maxBody is far more than Vault's answers have, in bytes. Vault itself limits
// a KV secret to 1 MiB.
const maxBody = 4 << 20

// newTransport makes connections as config says: without a proxy, with TLS 1.2
// or better.
func newTransport(config Config) (http.RoundTripper, error) {
	const op = "set up access to vault"
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: config.ServerName}
	if config.CAFile != "" {
		pem, err := os.ReadFile(config.CAFile)
		if err != nil {
			return nil, &Error{Kind: Misconfigured, Op: op, Detail: fmt.Sprintf("read the CA file: %v", err), Err: err}
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, misconfigured(op, "the CA file %s has no PEM certificate in it", config.CAFile)
		}
	}
	if (config.CertFile == "") != (config.KeyFile == "") {
		return nil, misconfigured(op, "a client certificate is a certificate file and a key file, found only one of them")
	}
	if config.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(config.CertFile, config.KeyFile)
		if err != nil {
			return nil, &Error{Kind: Misconfigured, Op: op, Detail: fmt.Sprintf("read the client certificate %s: %v", config.CertFile, err), Err: err}
		}
		// Sent whatever authorities the server says it prefers: a proxy in front of
		// Vault often names none or the wrong ones.
		tlsConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return &transport{&http.Transport{
		DialContext:            (&net.Dialer{Timeout: config.Timeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    config.Timeout,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}}, nil
}

// transport limits how much of an answer is read, and tells apart what has been
// sent and what has not.
type transport struct{ http.RoundTripper }

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	sent := false
	trace := &httptrace.ClientTrace{WroteHeaders: func() { sent = true }}
	resp, err := t.RoundTripper.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err != nil {
		if sent {
			err = &sentError{err}
		}
		return nil, err
	}
	resp.Body = &limitedBody{ReadCloser: resp.Body, left: maxBody}
	return resp, nil
}

// sentError is an error after a request was sent: Vault may have acted on it.
type sentError struct{ err error }

func (e *sentError) Error() string { return e.err.Error() }
func (e *sentError) Unwrap() error { return e.err }

var errTooLarge = errors.New("the answer is larger than 4 MiB")

type limitedBody struct {
	io.ReadCloser
	left int
}

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLarge
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
