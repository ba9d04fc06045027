package vaultauth

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"podlane/internal/redact"
)

func TestDecodeIDToken(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		claims map[string]any
		want   IDToken
	}{
		{"of GitLab", map[string]any{
			"iss": "https://gitlab.example.com", "aud": "vault", "iat": 1795262400, "exp": 1795266000, "project_id": "42", "ref_protected": "true",
		}, IDToken{
			Issuer: "https://gitlab.example.com", Audience: []string{"vault"}, IssuedAt: time.Unix(1795262400, 0), Expires: time.Unix(1795266000, 0),
			ProjectID: "42", RefProtected: true,
		}},
		{"other types", map[string]any{"aud": []string{"a", "b"}, "exp": 1795266000.7, "project_id": 42, "ref_protected": true}, IDToken{
			Audience: []string{"a", "b"}, Expires: time.Unix(1795266000, 0), ProjectID: "42", RefProtected: true,
		}},
		{"unprotected", map[string]any{"ref_protected": "false"}, IDToken{}},
		{"nothing said", map[string]any{"aud": nil, "exp": nil, "project_id": nil}, IDToken{Audience: []string{""}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := DecodeIDToken(jwt(t, tt.claims))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeIDTokenErrors(t *testing.T) {
	t.Parallel()
	for token, want := range map[string]string{
		"":                    "1 parts",
		"a.b":                 "2 parts",
		"a.b.c.d":             "4 parts",
		"head.!!!!.sig":       "not base64",
		"head.bm90aGluZw.sig": "claims in JSON",
		jwt(t, map[string]any{"exp": "soon"}).Reveal(): "claims in JSON",
		jwt(t, map[string]any{"exp": 1e300}).Reveal():  "claims in JSON",
	} {
		_, err := DecodeIDToken(redact.New(token))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one that says %q", token, err, want)
		} else if len(token) > 8 && strings.Contains(err.Error(), token[5:]) {
			t.Errorf("%q quotes the token", err)
		}
	}
}

func FuzzDecodeIDToken(f *testing.F) {
	f.Add(jwt(f, map[string]any{"exp": 1795266000, "aud": []string{"a"}}).Reveal())
	f.Add("..")
	f.Add("a.bnVsbA.c")
	f.Add("a.eyJleHAiOi0xfQ.c")
	f.Fuzz(func(t *testing.T, token string) {
		claims, err := DecodeIDToken(redact.New(token))
		if err != nil && len(token) > 20 && strings.Contains(err.Error(), token) {
			t.Errorf("%q quotes the token", err)
		}
		if y := claims.Expires.UTC().Year(); y < 1 || y > 9999 {
			t.Errorf("year %d", y)
		}
	})
}
