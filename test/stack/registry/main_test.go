package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestGuard(t *testing.T) {
	served := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	handler := guard(served, "ci", "right")
	tests := []struct {
		method, path, user, password string
		want                         int
	}{
		{"GET", "/v2/", "", "", 200},
		{"GET", "/v2/public/a/manifests/1", "", "", 200},
		{"HEAD", "/v2/public/a/manifests/1", "", "", 200},
		{"PUT", "/v2/public/a/manifests/1", "", "", 401},
		{"PUT", "/v2/public/a/manifests/1", "ci", "right", 200},
		{"GET", "/v2/private/a/manifests/1", "", "", 401},
		{"GET", "/v2/private/a/manifests/1", "ci", "wrong", 401},
		{"GET", "/v2/private/a/manifests/1", "other", "right", 401},
		{"GET", "/v2/private/a/manifests/1", "ci", "right", 200},
	}
	for _, test := range tests {
		r := httptest.NewRequest(test.method, test.path, nil)
		if test.user != "" {
			r.SetBasicAuth(test.user, test.password)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != test.want {
			t.Errorf("%s %s as %q: %d, expected %d", test.method, test.path, test.user, w.Code, test.want)
		}
		if w.Code == 401 && w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s %s: 401 doesn't say how to log in", test.method, test.path)
		}
	}
}
