package redact

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestSecretDoesNotPrint(t *testing.T) {
	const value = "hunter2-and-more"
	s := New(value)
	inside := struct {
		Public  Secret
		private Secret
		list    []Secret
		some    map[string]Secret
		pointer *Secret
	}{s, s, []Secret{s}, map[string]Secret{"a": s}, &s}
	_, _ = inside.private, inside.list
	var all strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s", "%w"} {
		for _, v := range []any{s, &s, inside, &inside, []Secret{s}} {
			fmt.Fprintf(&all, verb+"\n", v)
		}
	}
	encoded, err := json.Marshal(inside)
	if err != nil {
		t.Fatal(err)
	}
	all.Write(encoded)
	for _, form := range append(forms(value), fmt.Sprintf("%x", value), fmt.Sprintf("%X", value)) {
		if strings.Contains(all.String(), form) {
			t.Errorf("%q is printed:\n%s", form, all.String())
		}
	}
	if got := fmt.Sprint(s); got != Mark {
		t.Errorf("prints as %q, want %q", got, Mark)
	}
	if s.Reveal() != value {
		t.Errorf("reveals %q, want %q", s.Reveal(), value)
	}
}

func TestZeroSecret(t *testing.T) {
	var zero Secret
	if !zero.IsZero() || !New("").IsZero() || New("x").IsZero() {
		t.Error("only the empty value is zero")
	}
	if zero.Reveal() != "" || zero.String() != "" {
		t.Errorf("the zero value reveals %q and prints %q, want nothing", zero.Reveal(), zero)
	}
	if !New("a").Equal(New("a")) || New("a").Equal(New("b")) || !zero.Equal(New("")) {
		t.Error("Equal compares values")
	}
}
