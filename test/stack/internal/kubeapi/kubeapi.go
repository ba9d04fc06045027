// Package kubeapi makes the few requests to an API server that bringing up a
// cluster takes. Plain HTTP keeps the whole of client-go out of the program
// that everybody must compile first.
package kubeapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// requestTimeout bounds one request; everything asked here is small.
const requestTimeout = 10 * time.Second

// Client is an admin of one cluster.
type Client struct {
	url  string
	http *http.Client
}

// New returns a client of the server at url. It sends nothing yet.
func New(url, caFile, certFile, keyFile string) (*Client, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", caFile)
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
	}
	return &Client{url: url, http: &http.Client{Transport: transport, Timeout: requestTimeout}}, nil
}

// Get reads the object at path into out, a pointer, or drops the answer if out
// is nil.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.do(ctx, http.MethodGet, path, "", nil, out)
}

// Post creates in at path and reads the answer into out unless it is nil.
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, path, "application/json", body, out)
}

func (c *Client) do(ctx context.Context, method, path, contentType string, body []byte, out any) error {
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: the API server answered %s: %s", method, path, answer.Status, message(text))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// message is the human part of an error answer: most are Status objects.
func message(body []byte) string {
	var status struct{ Message string }
	if json.Unmarshal(body, &status) == nil && status.Message != "" {
		return status.Message
	}
	return string(bytes.TrimSpace(body))
}
