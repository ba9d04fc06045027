package transfer

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"podlane/internal/redact"
)

// server is as much of S3 as a presigned request sees, and goes wrong on order.
type server struct {
	*httptest.Server
	etag string

	mu     sync.Mutex
	object []byte
	parts  map[string][]byte
	faults []fault
	ranges []string // of the requests that were answered, faults included
	expect []string
}

// fault answers a request instead of the server. It reports whether it did.
type fault func(w http.ResponseWriter, r *http.Request) bool

func newServer(t *testing.T, size int, faults ...fault) *server {
	t.Helper()
	s := &server{etag: `"v1"`, object: make([]byte, size), parts: map[string][]byte{}, faults: faults}
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(s.object)
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.ranges = append(s.ranges, r.Header.Get("Range"))
	s.expect = append(s.expect, r.Header.Get("Expect"))
	var f fault
	if len(s.faults) > 0 {
		f, s.faults = s.faults[0], s.faults[1:]
	}
	s.mu.Unlock()
	if f != nil && f(w, r) {
		return
	}
	if r.URL.Query().Get("X-Amz-Signature") == "expired" {
		s3Error(w, http.StatusForbidden, "AccessDenied")
		return
	}
	switch r.Method {
	case http.MethodGet:
		if want := r.Header.Get("If-Match"); want != s.etag {
			s3Error(w, http.StatusPreconditionFailed, "PreconditionFailed")
			return
		}
		w.Header().Set("ETag", s.etag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.object))
	case http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.parts[r.URL.Query().Get("partNumber")] = body
		sum := md5.Sum(body)
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
	}
}

func (s *server) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.ranges...)
}

func s3Error(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>m</Message><StringToSign>X-Amz-Signature=secret</StringToSign></Error>`, code)
}

func answers(status int, code string) fault {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		s3Error(w, status, code)
		return true
	}
}

func ok(http.ResponseWriter, *http.Request) bool { return false }

// hangUp closes the connection without an answer.
func hangUp(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }

// breaksAfter answers a range correctly, but not to its end; then end is called.
func (s *server) breaksAfter(n int, end func(r *http.Request)) fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		var first, last int
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err != nil {
			return false
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(s.object)))
		w.Header().Set("Content-Length", strconv.Itoa(last-first+1))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(s.object[first : first+n])
		w.(http.Flusher).Flush()
		end(r)
		panic(http.ErrAbortHandler)
	}
}

func now(*http.Request) {}

// untilGone holds a request until its sender gives up.
func untilGone(r *http.Request) { <-r.Context().Done() }

// signer signs for a server as S3 would.
type signer struct {
	server *server
	// signatures are used one after the other; the last one stays.
	signatures []string
	err        error

	mu    sync.Mutex
	calls int
	renew int
}

// of makes the signer a server's; nil stands for a plain one.
func (s *signer) of(server *server) *signer {
	if s == nil {
		s = &signer{}
	}
	s.server = server
	return s
}

func (s *signer) sign(renew bool, query string) (Request, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if renew {
		s.renew++
	}
	if s.err != nil && s.calls > 1 {
		return Request{}, s.err
	}
	signature := "good"
	if len(s.signatures) > 0 {
		signature = s.signatures[min(s.calls, len(s.signatures))-1]
	}
	return Request{URL: redact.New(s.server.URL + "/bucket/key?" + query + "X-Amz-Signature=" + signature), Header: http.Header{"If-Match": {s.server.etag}, "Host": {"ignored"}}}, nil
}

func (s *signer) Read(_ context.Context, renew bool) (Request, error) { return s.sign(renew, "") }

func (s *signer) Part(_ context.Context, number int, _ int64, renew bool) (Request, error) {
	return s.sign(renew, fmt.Sprintf("partNumber=%d&", number))
}

func newClient(t *testing.T, c Config) *Client {
	t.Helper()
	c.Backoff = time.Millisecond
	client := New(c)
	t.Cleanup(client.Close)
	return client
}

// noSecret fails if an error shows what was signed.
func noSecret(t *testing.T, err error) {
	t.Helper()
	for _, s := range []string{"X-Amz-Signature", "expired", "/bucket", "secret"} {
		if strings.Contains(err.Error(), s) {
			t.Errorf("the error shows %q: %v", s, err)
		}
	}
}
