package pod

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podlane/executor/settings"
	"podlane/internal/joblog"
)

// A kubeconfig's clusters are told apart by its contexts; the one that settings
// name counts before the current one.
func TestContextOfAKubeconfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{apiVersion: v1, kind: Config, current-context: one,
clusters: [{name: one, cluster: {server: "https://one"}}, {name: two, cluster: {server: "https://two"}}],
contexts: [{name: one, context: {cluster: one}}, {name: two, context: {cluster: two}}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for context, want := range map[string]string{"": "https://one", "one": "https://one", "two": "https://two"} {
		s := settings.Default()
		s.Kubernetes.Kubeconfig, s.Kubernetes.Context = file, context
		cluster, err := ClusterOf(&s)
		if err != nil || cluster.Server != want {
			t.Errorf("context %q leads to %s, want %s; %v", context, cluster.Server, want, err)
		}
	}
	s := settings.Default()
	s.Kubernetes.Kubeconfig, s.Kubernetes.Context = file, "three"
	if _, err := ClusterOf(&s); err == nil || !strings.Contains(err.Error(), "read kubeconfig "+file) || !strings.Contains(err.Error(), "three") {
		t.Errorf("got %v, want the names of file and context", err)
	}
}

// A request to an API server that asks for patience is made again within the
// budget, and the log says so once.
func TestRetryBudgetOfRequests(t *testing.T) {
	tests := []struct {
		name     string
		budget   time.Duration
		refusals int64
		ok       bool
	}{
		{"no refusal", 0, 0, true},
		{"no budget", 0, 1, false},
		{"within the budget", time.Hour, 3, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var requests atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if requests.Add(1) <= tt.refusals {
					w.WriteHeader(http.StatusServiceUnavailable)
					_ = json.NewEncoder(w).Encode(metav1.Status{
						TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
						Status:   metav1.StatusFailure, Code: http.StatusServiceUnavailable, Reason: metav1.StatusReasonServiceUnavailable, Message: "later",
					})
					return
				}
				_ = json.NewEncoder(w).Encode(corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}})
			}))
			defer server.Close()
			var log strings.Builder
			client := clientOf(t, server.URL)
			client.budget, client.timeout, client.log = tt.budget, time.Hour, joblog.New(io.MultiWriter(&log, t.Output()))
			_, err := client.Get(t.Context(), "p")
			if (err == nil) != tt.ok || !tt.ok && !strings.Contains(err.Error(), "get pod p: later") {
				t.Errorf("got %v", err)
			}
			if told := strings.Count(log.String(), "the cluster does not answer, trying again for up to"); told != int(min(tt.refusals, 1)) && tt.ok {
				t.Errorf("told %d times:\n%s", told, log.String())
			}
		})
	}
}
