package joblog

import (
	"strings"
	"testing"
)

func TestALineStaysALine(t *testing.T) {
	var out strings.Builder
	log := New(&out)
	log.Linef("image %q", "a")
	log.Warnf("%s", "one\r\ntwo\x1b[0Kthree\u2028four\n")
	want := "image \"a\"\nwarning: one two [0Kthree four\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	var silent *Log
	silent.Linef("nobody listens")
}
