package vaultauth

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"podlane/internal/redact"
)

// wire speaks as much of Vault's protocol as we use, and breaks it on demand.
// What a real Vault says and does is tested with a real one, in test/e2e.
type wire struct {
	*httptest.Server
	t *testing.T

	mu     sync.Mutex
	asked  []string            // paths, in order
	tokens map[string]bool     // by name, whether it lives
	leases map[string][]string // by token
	ttl    time.Duration       // of tokens
	extra  map[string]any      // goes into auth
	when   []time.Time         // of requests
	head   []http.Header
	fault  func(path string, n int) fault // n counts from 0 for each path
}

// fault is what happens to one request.
type fault struct {
	status int    // answered instead of acting
	body   string // with status
	header http.Header
	lose   string // what happens to the answer after acting: reset, hang, cut, html, huge
}

func newWire(t *testing.T) *wire {
	t.Helper()
	w := newPlainWire(t)
	w.Server = httptest.NewServer(w)
	t.Cleanup(w.Close)
	return w
}

func newPlainWire(t *testing.T) *wire {
	return &wire{t: t, tokens: map[string]bool{}, leases: map[string][]string{}, ttl: time.Hour}
}

func (v *wire) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	v.mu.Lock()
	n := 0
	for _, p := range v.asked {
		if p == path {
			n++
		}
	}
	v.asked = append(v.asked, path)
	v.when = append(v.when, time.Now())
	v.head = append(v.head, r.Header.Clone())
	var f fault
	if v.fault != nil {
		f = v.fault(path, n)
	}
	status, out := f.status, f.body
	if status == 0 {
		status, out = v.act(path, r.Header.Get("X-Vault-Token"), body)
	}
	v.mu.Unlock()
	for name, values := range f.header {
		w.Header()[name] = values
	}
	switch f.lose {
	case "":
		w.WriteHeader(status)
		_, _ = io.WriteString(w, out)
	case "html":
		_, _ = io.WriteString(w, "<html>welcome to the proxy</html>")
	case "huge":
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"data":{"x":"`)
		for range 5 << 10 {
			if _, err := io.WriteString(w, strings.Repeat("x", 1<<10)); err != nil {
				return
			}
		}
		_, _ = io.WriteString(w, `"}}`)
	case "hang":
		<-r.Context().Done()
	case "cut":
		w.Header().Set("Content-Length", fmt.Sprint(len(out)))
		_, _ = io.WriteString(w, out[:len(out)/2])
		panic(http.ErrAbortHandler)
	case "reset":
		panic(http.ErrAbortHandler)
	default:
		v.t.Errorf("unknown way to lose an answer: %s", f.lose)
	}
}

// act does what Vault does. v.mu is held.
func (v *wire) act(path, token string, body []byte) (int, string) {
	var in map[string]any
	if len(body) > 0 && json.Unmarshal(body, &in) != nil {
		return 400, `{"errors":["failed to parse JSON input"]}`
	}
	answer := func(what map[string]any) (int, string) {
		out, err := json.Marshal(what)
		if err != nil {
			v.t.Error(err)
		}
		return 200, string(out)
	}
	auth := func(token string) (int, string) {
		a := map[string]any{
			"client_token": token, "accessor": "accessor-of-" + token, "lease_duration": int(v.ttl.Seconds()), "renewable": true,
			"token_type": "service", "policies": []string{"default", fmt.Sprint(in["role"])},
		}
		for name, value := range v.extra {
			a[name] = value
		}
		return answer(map[string]any{"auth": a})
	}
	lease := func(duration int, data map[string]any) (int, string) {
		id := fmt.Sprintf("%s/lease-%d", path, len(v.asked))
		v.leases[token] = append(v.leases[token], id)
		return answer(map[string]any{"lease_id": id, "lease_duration": duration, "data": data})
	}
	if path == "auth/jwt/login" {
		token := fmt.Sprintf("hvs.token-number-%d", len(v.tokens)+1)
		v.tokens[token] = true
		return auth(token)
	}
	if !v.tokens[token] {
		return 403, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`
	}
	switch {
	case path == "auth/token/renew-self":
		return auth(token)
	case path == "auth/token/revoke-self":
		v.tokens[token] = false
		delete(v.leases, token)
		return 204, ""
	case strings.HasPrefix(path, "kubernetes/creds/"):
		return lease(1200, map[string]any{
			"service_account_name": "ci", "service_account_namespace": in["kubernetes_namespace"],
			"service_account_token": fmt.Sprintf("kube-token-number-%d", len(v.asked)),
		})
	case strings.HasPrefix(path, "aws/sts/"):
		return lease(900, map[string]any{
			"access_key": "AKIA", "secret_key": fmt.Sprintf("secret-key-number-%d", len(v.asked)), "session_token": "the-session-token", "security_token": "the-security-token",
		})
	case path == "kv/plain":
		return answer(map[string]any{"data": map[string]any{"user": "gitlab", "password": "correct horse", "port": 5432}})
	case path == "secret/data/plain":
		return answer(map[string]any{"data": map[string]any{"data": map[string]any{"password": "battery staple"}, "metadata": map[string]any{}}})
	}
	return 404, `{"errors":["no handler for route \"` + path + `\". route entry not found."]}`
}

// count returns how often a path was asked for.
func (v *wire) count(path string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for _, p := range v.asked {
		if p == path {
			n++
		}
	}
	return n
}

func (v *wire) requests() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.asked)
}

// live returns how many leases there are, of tokens that live.
func (v *wire) live() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for _, leases := range v.leases {
		n += len(leases)
	}
	return n
}

func (v *wire) breaking(f func(path string, n int) fault) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fault = f
}

// jwt makes a token that nobody has signed.
func jwt(t testing.TB, claims map[string]any) redact.Secret {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	return redact.New(enc([]byte(`{"alg":"RS256"}`)) + "." + enc(payload) + "." + enc([]byte("signature")))
}

// clockAt is a clock that stands still until it is set.
type clockAt struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clockAt { return &clockAt{at: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)} }

func (c *clockAt) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clockAt) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// job is what one job has: a client, an id_token, a place for state.
type job struct {
	*testing.T
	wire   *wire
	client *Client
	clock  *clockAt
	id     redact.Secret
	dir    string
	key    redact.Secret
	said   *[]string
}

// newJob makes one with an id_token that lives for an hour.
func newJob(t *testing.T, w *wire, change func(*Config)) *job {
	t.Helper()
	config := Config{Address: w.URL, Timeout: 30 * time.Second, RetryBudget: time.Minute, UserAgent: "podlane/test"}
	if change != nil {
		change(&config)
	}
	var mu sync.Mutex
	said := &[]string{}
	client, err := New(config, func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		*said = append(*said, fmt.Sprintf(format, args...))
	})
	if err != nil {
		t.Fatal(err)
	}
	clock := newClock()
	return &job{
		T: t, wire: w, client: client, clock: clock, dir: t.TempDir(), key: NewKey(), said: said,
		id: jwt(t, map[string]any{"exp": clock.at.Add(time.Hour).Unix()}),
	}
}

// stage opens a session as a process of its own would.
func (j *job) stage() *Session {
	return Open(Options{Client: j.client, Role: "ci", IDToken: j.id, Store: j.store(), Now: j.clock.now})
}

func (j *job) store() *Store {
	j.Helper()
	s, err := NewStore(j.dir, j.key, "gitlab.example.com 7", func(format string, args ...any) { j.Errorf("warning: "+format, args...) })
	if err != nil {
		j.Fatal(err)
	}
	return s
}

func (j *job) kube(s *Session) KubeToken {
	j.Helper()
	k, err := s.KubeToken(j.Context(), kubeRequest)
	if err != nil {
		j.Fatal(err)
	}
	return k
}

var kubeRequest = KubeRequest{Mount: "kubernetes", Role: "ci", Namespace: "jobs", TTL: 20 * time.Minute}

const (
	login  = "auth/jwt/login"
	renew  = "auth/token/renew-self"
	revoke = "auth/token/revoke-self"
	creds  = "kubernetes/creds/ci"
)
