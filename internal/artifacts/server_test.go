package artifacts

import (
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

const (
	testToken = "glcbt-64_very-secret"
	testID    = 42
	testPath  = "/api/v4/jobs/42/artifacts"
)

// gitlab speaks GitLab's two artifact endpoints as network/gitlab.go expects
// them and remembers what it was sent. A test that needs an answer other than
// the good one queues it.
type gitlab struct {
	*httptest.Server

	mu       sync.Mutex
	answers  []http.HandlerFunc // used up one a request, before the good one
	uploads  []received
	archive  []byte // what a download returns
	requests []*http.Request
}

// received is one complete upload.
type received struct {
	fileName string
	query    string
	content  []byte
}

func newGitLab(t *testing.T, answers ...http.HandlerFunc) *gitlab {
	t.Helper()
	g := &gitlab{answers: answers}
	g.Server = httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(g.Close)
	return g
}

func (g *gitlab) serve(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.requests = append(g.requests, r)
	var answer http.HandlerFunc
	if len(g.answers) > 0 {
		answer, g.answers = g.answers[0], g.answers[1:]
	}
	g.mu.Unlock()
	switch {
	case answer != nil:
		answer(w, r)
	case r.URL.Path != testPath:
		http.NotFound(w, r)
	case r.Header.Get("JOB-TOKEN") != testToken:
		status(http.StatusForbidden, `{"message":"403 Forbidden"}`)(w, r)
	case r.Method == http.MethodPost:
		g.receive(w, r)
	default:
		g.mu.Lock()
		defer g.mu.Unlock()
		_, _ = w.Write(g.archive)
	}
}

func (g *gitlab) receive(w http.ResponseWriter, r *http.Request) {
	form, err := r.MultipartReader()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	part, err := form.NextPart()
	if err != nil {
		return // the client gave up
	}
	content, err := io.ReadAll(part)
	if err != nil {
		return
	}
	if _, err := form.NextPart(); err != io.EOF {
		return // the form's end is missing: not a complete upload
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.uploads = append(g.uploads, received{fileName: part.FileName(), query: r.URL.RawQuery, content: content})
	g.archive = content
	w.Header().Set("X-Request-Id", "01REQ")
	w.WriteHeader(http.StatusCreated)
}

func (g *gitlab) seen() (uploads []received, requests []*http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.uploads, g.requests
}

// status answers with a code and, if it looks like one, a JSON body.
func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if strings.HasPrefix(body, "{") {
			w.Header().Set("Content-Type", "application/json")
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// reset breaks the connection.
func reset(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

func pemOf(certificate *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
}

// result is what a command left behind.
type result struct {
	code   int
	output string
}

// run runs a command against g in dir.
func (g *gitlab) run(t *testing.T, dir, command string, args ...string) result {
	t.Helper()
	return runWith(t, Config{Dir: dir, retryDelay: 1}, append([]string{command, "--url", g.URL, "--token", testToken, "--id", "42"}, args...)...)
}

func runWith(t *testing.T, config Config, args ...string) result {
	t.Helper()
	var stdout, stderr strings.Builder
	if config.retryDelay == 0 {
		config.retryDelay = 1
	}
	code := config.Main(t.Context(), args, &stdout, &stderr)
	if strings.Contains(stderr.String(), testToken) || strings.Contains(stdout.String(), testToken) {
		t.Errorf("the token is in the output:\n%s%s", stdout.String(), stderr.String())
	}
	return result{code: code, output: stderr.String()}
}

// want checks the exit code and that the output has all lines' parts, in order.
func (r result) want(t *testing.T, code int, parts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d; output:\n%s", r.code, code, r.output)
	}
	rest := r.output
	for _, part := range parts {
		_, after, found := strings.Cut(rest, part)
		if !found {
			t.Errorf("output lacks %q, or has it too early:\n%s", part, r.output)
			return
		}
		rest = after
	}
}
