package podagent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReceiveGrants(t *testing.T) {
	l := Layout{Grants: t.TempDir()}
	if err := ReceiveGrants(l, strings.NewReader(`{"files":{"a/token":"one","a/kubeconfig":"k"},"env":{"KUBECONFIG":"/x","B":"2"}}`)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"B=2", "KUBECONFIG=/x"}, l.grantedEnv()); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	info, err := os.Stat(filepath.Join(l.Grants, "a/token"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file is %v, %v", info, err)
	}
	// A later delivery takes an earlier one's place.
	if err := ReceiveGrants(l, strings.NewReader(`{"files":{"a/token":"two"},"env":{"B":"3"}}`)); err != nil {
		t.Fatal(err)
	}
	if token, err := os.ReadFile(filepath.Join(l.Grants, "a/token")); err != nil || string(token) != "two" {
		t.Errorf("the token is %q, %v", token, err)
	}
	if diff := cmp.Diff([]string{"B=3"}, l.grantedEnv()); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

func TestReceiveGrantsRefuses(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"half of it", `{"files":{"a":"secret`, "did not arrive whole"},
		{"another place", `{"files":{"../a":"x"}}`, `the file "../a" does not lie below`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := ReceiveGrants(Layout{Grants: t.TempDir()}, strings.NewReader(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	if err := ReceiveGrants(Layout{Grants: filepath.Join(t.TempDir(), "none")}, strings.NewReader(`{}`)); err == nil || !strings.Contains(err.Error(), "started without grants") {
		t.Errorf("got %v", err)
	}
}

func TestPrintAWSCredentials(t *testing.T) {
	l := Layout{Grants: t.TempDir()}
	if err := ReceiveGrants(l, strings.NewReader(`{"files":{"bucket/credentials.json":"{\"Version\":1}"}}`)); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := PrintAWSCredentials(l, "bucket", &out); err != nil || out.String() != `{"Version":1}` {
		t.Errorf("got %s, %v", out.String(), err)
	}
	for _, name := range []string{"other", "../../etc"} {
		if err := PrintAWSCredentials(l, name, &out); err == nil {
			t.Errorf("%s was printed", name)
		}
	}
}
