package pod

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The clock of the machine that gc runs on may be set wrong, or jump: a live job
// looks no older for that.
func TestAgesAreByTheServersClock(t *testing.T) {
	for _, ahead := range []time.Duration{0, -5 * time.Hour, 5 * time.Hour} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(-ahead).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusForbidden) // those who may not see the version get the time
		}))
		defer server.Close()
		c := clientOf(t, server.URL)
		c.timeout, c.budget = time.Minute, time.Minute
		now, err := c.Time(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// A pod that the API server has seen for half an hour, of a job that may
		// take one.
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			CreationTimestamp: metav1.NewTime(time.Now().Add(-ahead).Add(-30 * time.Minute)), Annotations: map[string]string{AnnotationTimeout: "1h"},
		}}
		if why := (Sweep{Now: now}).podIsOver(p); why != "" {
			t.Errorf("with a clock that is %s ahead, a live pod is %s", ahead, why)
		}
		p.CreationTimestamp = metav1.NewTime(p.CreationTimestamp.Add(-time.Hour))
		if why := (Sweep{Now: now}).podIsOver(p); why == "" {
			t.Errorf("with a clock that is %s ahead, a pod is never too old", ahead)
		}
	}
}
