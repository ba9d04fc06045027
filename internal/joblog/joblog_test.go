package joblog

import (
	"fmt"
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

func TestLinesKeepApartFromOutput(t *testing.T) {
	var trace strings.Builder
	var streams Streams
	output, log, errs := streams.Bytes(&trace), New(streams.Lines(&trace)), New(streams.Lines(&trace))
	fmt.Fprint(output, "a whole line\n")
	log.Linef("first")
	fmt.Fprint(output, "half of ")
	log.Linef("second")
	errs.Linef("third")
	fmt.Fprint(output, "a line\nand ")
	fmt.Fprint(output, "")
	errs.Linef("fourth")
	want := "a whole line\nfirst\nhalf of \nsecond\nthird\na line\nand \nfourth\n"
	if trace.String() != want {
		t.Errorf("got %q, want %q", trace.String(), want)
	}
}
