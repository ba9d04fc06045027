package gitlabsim

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// Options of a server. The zero value listens on a free port of 127.0.0.1.
type Options struct {
	// Addr is where to listen, as host:port; port 0 picks a free one. It also
	// goes into every address that jobs see, so pods must be able to reach it.
	Addr string
	// Dir keeps repositories, logs and artifacts. Empty: a temporary one that
	// Close removes.
	Dir string
	// LongPoll is how long a job request is held while there is no job.
	// 0: 5 s; negative: not at all.
	LongPoll time.Duration
	// UpdateInterval is what runners are told in
	// X-GitLab-Trace-Update-Interval; whole seconds. 0: 1 s.
	UpdateInterval time.Duration
	// ArtifactLimit is the size in bytes above which an upload is refused with
	// 413. 0: none.
	ArtifactLimit int64
	// DirectDownload answers artifact downloads that ask for it with a redirect
	// to another address, as GitLab does with object storage.
	DirectDownload bool
	// Middleware wraps the whole server: to break answers, to count requests.
	Middleware func(http.Handler) http.Handler
}

// Server is one GitLab instance. All its methods may be called concurrently.
type Server struct {
	opts     Options
	dir      string
	tempDir  bool
	instance string
	http     *http.Server
	url      string
	stopped  chan struct{} // closed by Close: ends long polls
	served   chan struct{} // closed when the HTTP server has ended
	backend  string        // git-http-backend
	keys     *keyring
	runner   *Runner

	mu         sync.Mutex
	queue      []*Job
	queued     chan struct{} // closed and replaced when the queue grows
	updates    int64         // counts changes of the queue
	jobs       map[int64]*Job
	tokens     map[string]*Job
	runners    map[string]*Runner
	projects   map[string]*Project
	namespaces map[string]int64
	pipelines  int64
	objects    map[string]string // one-time names of files, for direct downloads
}

// Start listens and serves until Close. ctx bounds the start alone.
func Start(ctx context.Context, opts Options) (*Server, error) {
	backend, err := findHTTPBackend(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := newKeyring()
	if err != nil {
		return nil, err
	}
	s := &Server{
		opts: opts, dir: opts.Dir, instance: randomUUID(), backend: backend, keys: keys,
		stopped: make(chan struct{}), served: make(chan struct{}), queued: make(chan struct{}),
		jobs: map[int64]*Job{}, tokens: map[string]*Job{}, runners: map[string]*Runner{},
		projects: map[string]*Project{}, namespaces: map[string]int64{}, objects: map[string]string{},
	}
	s.setDefaults()
	s.runner = s.AddRunner(RunnerSpec{Description: "any job", RunUntagged: true, AnyTag: true})
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	if err := s.listen(ctx); err != nil {
		return nil, errors.Join(err, s.removeDir())
	}
	return s, nil
}

func (s *Server) setDefaults() {
	if s.opts.Addr == "" {
		s.opts.Addr = "127.0.0.1:0"
	}
	if s.opts.LongPoll == 0 {
		s.opts.LongPoll = 5 * time.Second
	}
	if s.opts.UpdateInterval <= 0 {
		s.opts.UpdateInterval = time.Second
	}
}

func (s *Server) makeDir() error {
	if s.dir != "" {
		return os.MkdirAll(s.dir, 0o755)
	}
	dir, err := os.MkdirTemp("", "gitlabsim-")
	if err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	s.dir, s.tempDir = dir, true
	return nil
}

func (s *Server) removeDir() error {
	if !s.tempDir {
		return nil
	}
	return os.RemoveAll(s.dir)
}

func (s *Server) listen(ctx context.Context) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", s.opts.Addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.opts.Addr, err)
	}
	s.url = "http://" + listener.Addr().String()
	handler := s.routes()
	if s.opts.Middleware != nil {
		handler = s.opts.Middleware(handler)
	}
	s.http = &http.Server{Handler: handler, ReadHeaderTimeout: 30 * time.Second}
	go func() {
		defer close(s.served)
		_ = s.http.Serve(listener)
	}()
	return nil
}

// Close ends the server and every request in flight, and removes its temporary
// directory. Jobs that haven't finished never do.
func (s *Server) Close() error {
	close(s.stopped)
	err := s.http.Close()
	<-s.served
	return errors.Join(err, s.removeDir())
}

// URL is the instance's address, without a slash at the end. It is also the
// issuer of its ID tokens.
func (s *Server) URL() string { return s.url }

// InstanceID is what jobs are told as their GitLab's UUID.
func (s *Server) InstanceID() string { return s.instance }

// host is the address without its scheme.
func (s *Server) host() string { return strings.TrimPrefix(s.url, "http://") }

// RunnerToken is the token of a runner that takes every job.
func (s *Server) RunnerToken() string { return s.runner.Token }

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v4/runners/verify", s.verifyRunner)
	mux.HandleFunc("POST /api/v4/jobs/request", s.requestJob)
	mux.HandleFunc("PUT /api/v4/jobs/{id}", s.updateJob)
	mux.HandleFunc("PATCH /api/v4/jobs/{id}/trace", s.patchTrace)
	mux.HandleFunc("POST /api/v4/jobs/{id}/artifacts/authorize", s.authorizeArtifacts)
	mux.HandleFunc("POST /api/v4/jobs/{id}/artifacts", s.uploadArtifacts)
	mux.HandleFunc("GET /api/v4/jobs/{id}/artifacts", s.downloadArtifacts)
	mux.HandleFunc("GET /-/objects/{name}", s.downloadObject)
	mux.HandleFunc("GET /.well-known/openid-configuration", s.discovery)
	mux.HandleFunc("GET /oauth/discovery/keys", s.jwks)
	mux.HandleFunc("GET /api/v4/", notFound)
	mux.HandleFunc("/", s.git)
	return mux
}

// RunnerSpec describes a runner: which jobs it may take.
type RunnerSpec struct {
	Description string
	// Tags that the runner has. It takes jobs all of whose tags it has.
	Tags []string
	// AnyTag takes jobs whatever their tags.
	AnyTag bool
	// RunUntagged takes jobs without tags.
	RunUntagged bool
}

// Runner is registered with the server and asks it for jobs with Token.
type Runner struct {
	RunnerSpec
	ID    int64
	Token string
}

// AddRunner registers a runner.
func (s *Server) AddRunner(spec RunnerSpec) *Runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &Runner{RunnerSpec: spec, ID: int64(len(s.runners) + 1), Token: "glrt-" + randomHex(10)}
	s.runners[r.Token] = r
	return r
}

func (s *Server) runnerByToken(token string) *Runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runners[token]
}

func (r *Runner) takes(job *Job) bool {
	if len(job.spec.Tags) == 0 {
		return r.RunUntagged
	}
	if r.AnyTag {
		return true
	}
	have := map[string]bool{}
	for _, tag := range r.Tags {
		have[tag] = true
	}
	for _, tag := range job.spec.Tags {
		if !have[tag] {
			return false
		}
	}
	return true
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails: crypto/rand
	return hex.EncodeToString(b)
}

func randomUUID() string {
	h := randomHex(16)
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-a" + h[17:20] + "-" + h[20:]
}
