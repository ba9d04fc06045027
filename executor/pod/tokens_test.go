package pod

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podlane/executor/settings"
	"podlane/internal/joblog"
	"podlane/internal/redact"
)

// changing is a source whose tokens are numbered; the server below takes the
// ones from a certain number on.
type changing struct {
	mu       sync.Mutex
	current  string
	replaced int
	err      error
}

func (c *changing) Token(context.Context) (redact.Secret, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return redact.New(c.current), c.err
}

func (c *changing) Replace(_ context.Context, refused redact.Secret) (redact.Secret, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if refused.Reveal() != c.current {
		return redact.Secret{}, errors.New("asked to replace a token that is not the present one")
	}
	c.replaced++
	c.current += "-new"
	return redact.New(c.current), c.err
}

// tokenServer answers like an API server that takes one token only.
func tokenServer(t *testing.T, good string) (*settings.Settings, *atomic.Int64) {
	t.Helper()
	var requests atomic.Int64
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "Bearer "+good {
			w.WriteHeader(http.StatusUnauthorized)
			_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: 401, Reason: metav1.StatusReasonUnauthorized, Message: "Unauthorized"})
			return
		}
		if r.Method == http.MethodDelete && len(body) == 0 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if r.Header.Get("Upgrade") != "" {
			http.Error(w, "this server runs no programs", http.StatusTeapot)
			return
		}
		_ = json.NewEncoder(w).Encode(corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "p"}})
	}))
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s := settings.Default()
	s.Kubernetes.Server, s.Kubernetes.CAFile = server.URL, ca
	s.Kubernetes.RetryBudget = settings.Duration(time.Minute)
	return &s, &requests
}

func TestTokensAreReplacedOnce(t *testing.T) {
	s, requests := tokenServer(t, "a-new")
	source := &changing{current: "a"}
	client, err := Connect(s, source, joblog.New(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := client.Get(t.Context(), "p"); err != nil || p.Name != "p" {
		t.Fatalf("got %v", err)
	}
	if source.replaced != 1 || requests.Load() != 2 {
		t.Errorf("%d tokens replaced in %d requests, want 1 in 2", source.replaced, requests.Load())
	}
	// The body of a request goes along when it is made again.
	source.current = "a"
	if err := client.Delete(t.Context(), "p", 1); err != nil {
		t.Error(err)
	}
	// Exec too, and the WebSocket dialer's 401 is seen as one: the server's own
	// answer comes through.
	source.current = "a"
	replaced := source.replaced
	err = client.Exec(t.Context(), "p", "build", []string{"true"}, Streams{Stdout: io.Discard})
	if err == nil || source.replaced != replaced+1 {
		t.Errorf("exec ended with %v after %d replacements, want one", err, source.replaced-replaced)
	}
}

func TestTokensThatStayRefused(t *testing.T) {
	s, requests := tokenServer(t, "none of these")
	client, err := Connect(s, &changing{current: "a"}, joblog.New(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	if err := client.WhyLost(t.Context(), "p"); err == nil || err.Error() != "forbidden: Unauthorized" {
		t.Errorf("got %v, want the refusal", err)
	}
	if requests.Load() != 2 {
		t.Errorf("%d requests, want 2: the token is replaced once", requests.Load())
	}
}

func TestNoTokenIsNotRetried(t *testing.T) {
	s, requests := tokenServer(t, "a")
	reason := errors.New("the id_token has expired")
	client, err := Connect(s, &changing{err: reason}, joblog.New(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get(t.Context(), "p"); !errors.Is(err, reason) {
		t.Errorf("got %v, want the source's reason", err)
	}
	if err := client.WhyLost(t.Context(), "p"); !errors.Is(err, reason) {
		t.Errorf("got %v, want the source's reason", err)
	}
	if requests.Load() != 0 {
		t.Errorf("%d requests without a token", requests.Load())
	}
}

// What a kubeconfig has to prove who we are is not used beside tokens.
func TestTokensTakeAKubeconfigsPlace(t *testing.T) {
	s, _ := tokenServer(t, "a")
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: '" + s.Kubernetes.Server + "', certificate-authority: " + s.Kubernetes.CAFile +
		"}}]\nusers: [{name: u, user: {token: other}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}, {name: nobody, context: {cluster: c}}]\n"
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Kubernetes.Server, s.Kubernetes.CAFile, s.Kubernetes.Kubeconfig = "", "", kubeconfig
	for _, context := range []string{"", "nobody"} {
		s.Kubernetes.Context = context
		client, err := Connect(s, &changing{current: "a"}, joblog.New(io.Discard))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Get(t.Context(), "p"); err != nil {
			t.Errorf("context %q: %v", context, err)
		}
	}
	cluster, err := ClusterOf(s)
	if err != nil || len(cluster.CA) == 0 {
		t.Errorf("the cluster is %s with a CA of %d bytes, %v", cluster.Server, len(cluster.CA), err)
	}
}
