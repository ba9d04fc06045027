// Package bootstrap tests what scripts/vault-bootstrap and
// scripts/bucket-bootstrap set up: with logins and requests as jobs could make
// them, against the stack's Vault and S3.
package bootstrap

import (
	"context"
	"fmt"
	"os"
	"testing"

	"podlane/test/bed"
)

// shared is a bed whose runner has nothing to do. It is nil on a cluster that is
// not the test stack.
var shared *bed.Bed

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Getenv("PODLANE_E2E_CLUSTER") != "" {
		fmt.Fprintln(os.Stderr, "bootstrap: this cluster is not the test stack: nothing to test")
		return 0
	}
	var err error
	if shared, err = bed.Start(context.Background(), bed.Options{Root: ".", Environ: os.Environ()}); err != nil {
		fmt.Fprintln(os.Stderr, "bootstrap:", err)
		return 1
	}
	code := m.Run()
	if err := shared.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "bootstrap: after all tests:", err)
		return 1
	}
	return code
}
