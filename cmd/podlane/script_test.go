package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	main := func() { os.Exit(run(os.Args, os.Environ(), os.Stdout, os.Stderr)) }
	testscript.Main(m, map[string]func(){
		"podlane":         main,
		"podlane-config":  main,
		"podlane-prepare": main,
		"podlane-run":     main,
		"podlane-cleanup": main,
	})
}

// The program as the runner sees it: arguments, environment, streams, exit
// code. Scripts that need a cluster are in test/e2e.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}
