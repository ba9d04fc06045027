package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestHandler(t *testing.T) {
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, r.Method+" "+r.Host+" "+r.URL.Path+" "+string(body))
	}))
	defer behind.Close()
	target, err := url.Parse(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(handler(target))
	defer front.Close()
	host := strings.TrimPrefix(front.URL, "http://")
	long := strings.Repeat("x", maxForm+100)
	for _, tt := range []struct{ method, path, body, want string }{
		{http.MethodPost, "/", "Action=GetCallerIdentity&Version=2011-06-15", callerIdentity},
		{http.MethodPost, "/", "Action=AssumeRole", "POST " + host + " / Action=AssumeRole"},
		{http.MethodPost, "/", long, "POST " + host + " / " + long},
		{http.MethodPut, "/bucket/key", "Action=GetCallerIdentity", "PUT " + host + " /bucket/key Action=GetCallerIdentity"},
	} {
		request, err := http.NewRequest(tt.method, front.URL+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || string(got) != tt.want {
			t.Errorf("%s %s %.30s: got %.200s, %v", tt.method, tt.path, tt.body, got, err)
		}
	}
}
