package podagent

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKeptEnv(t *testing.T) {
	l := Layout{State: t.TempDir()}
	if diff := cmp.Diff([]string{"A=1"}, l.keptEnv([]string{"A=1"})); diff != "" {
		t.Errorf("nothing kept (-want +got):\n%s", diff)
	}
	want := []string{"A=two\nlines", "PATH=/x", "EMPTY="}
	if err := l.keepEnv(want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, l.keptEnv([]string{"A=1"})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
