package board_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.com/board/board"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func TestNewestWins(t *testing.T) {
	b := board.New()
	for _, d := range []struct {
		version string
		at      time.Time
	}{{"2", noon}, {"1", noon.Add(-time.Hour)}, {"3", noon.Add(time.Hour)}} {
		if err := b.Record("api", d.version, d.at); err != nil {
			t.Fatal(err)
		}
	}
	got := b.Deployments()
	if len(got) != 1 || got[0].Version != "3" {
		t.Errorf("deployments %+v, want version 3 alone", got)
	}
}

func TestLoad(t *testing.T) {
	b := board.New()
	err := b.Load(strings.NewReader("[[deployments]]\nservice = \"web\"\nversion = \"1.4\"\nat = 2026-05-01T12:00:00Z\n"))
	got := b.Deployments()
	if err != nil || len(got) != 1 || got[0] != (board.Deployment{Service: "web", Version: "1.4", At: noon}) {
		t.Errorf("deployments %+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"nonsense": "toml: line 1", "[[deployments]]\nservice = \"web\"\n": "both are needed", "[[deploy]]\n": "unknown key deploy",
	} {
		if err := b.Load(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestHTTP(t *testing.T) {
	handler := board.New().Handler(func() time.Time { return noon })
	tests := []struct {
		method, body string
		status       int
		want         string
	}{
		{"GET", "", 200, "[]\n"},
		{"POST", `{"service":"web","version":"1.4"}`, 204, ""},
		{"POST", `{"service":"api","version":"2.0"}`, 204, ""},
		{"POST", `{"service":"api"}`, 422, "deployment of \"api\" in version \"\": both are needed\n"},
		{"POST", `nonsense`, 400, "not a deployment in JSON"},
		{
			"GET", "", 200,
			`[{"service":"api","version":"2.0","at":"2026-05-01T12:00:00Z"},` +
				`{"service":"web","version":"1.4","at":"2026-05-01T12:00:00Z"}]` + "\n",
		},
		{"DELETE", "", 405, ""},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(tt.method, "/api/deployments", strings.NewReader(tt.body))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != tt.status || !strings.HasPrefix(w.Body.String(), tt.want) {
			t.Errorf("%s %s: %d %s, want %d %s", tt.method, tt.body, w.Code, w.Body, tt.status, tt.want)
		}
	}
}
