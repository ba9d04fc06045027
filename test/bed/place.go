package bed

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"podlane/test/stack/stackenv"
)

// place is where a bed runs: on the test stack, or on any other cluster.
type place struct {
	root, namespace                    string
	adminKubeconfig, productKubeconfig string
	// address is where pods reach this machine.
	address string
}

// findPlace reads PODLANE_E2E_CLUSTER and its siblings: see docs/testing.md.
func findPlace(ctx context.Context, o Options) (place, stackenv.Stack, error) {
	if lookup(o.Environ, "PODLANE_E2E_CLUSTER") == "" {
		stack, err := findStack(o)
		return place{
			root: stack.Root, namespace: stackenv.Namespace, address: stack.BridgeIP,
			adminKubeconfig: stack.AdminKubeconfig, productKubeconfig: stack.ProductKubeconfig,
		}, stack, err
	}
	root, err := stackenv.FindRoot(o.Root)
	if err != nil {
		return place{}, stackenv.Stack{}, err
	}
	kubeconfig := lookup(o.Environ, "KUBECONFIG")
	// Tests run in their own folder: a relative path would not mean what it
	// meant to whoever set it.
	if !filepath.IsAbs(kubeconfig) || len(filepath.SplitList(kubeconfig)) != 1 {
		return place{}, stackenv.Stack{}, fmt.Errorf("KUBECONFIG is %q, expected the absolute path of one file", kubeconfig)
	}
	p := place{
		root: root, adminKubeconfig: kubeconfig, productKubeconfig: kubeconfig,
		namespace: cmp.Or(lookup(o.Environ, "PODLANE_E2E_NAMESPACE"), stackenv.Namespace),
		address:   lookup(o.Environ, "PODLANE_E2E_ADDRESS"),
	}
	if p.address == "" {
		p.address, err = outboundAddress(ctx)
	}
	return p, stackenv.Stack{}, err
}

// outboundAddress is this machine's address towards the world. To connect a UDP
// socket sends nothing: it asks the routing table alone. 192.0.2.0/24 is nobody's
// (RFC 5737).
func outboundAddress(ctx context.Context) (string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", "192.0.2.1:9")
	if err != nil {
		return "", fmt.Errorf("find this machine's address: %w; hint: set PODLANE_E2E_ADDRESS", err)
	}
	defer conn.Close()
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	return host, err
}

// findStack finds the stack that PODLANE_STACK names. Whether it runs, its files
// do not tell.
func findStack(o Options) (stackenv.Stack, error) {
	root, err := stackenv.FindRoot(o.Root)
	if err != nil {
		return stackenv.Stack{}, err
	}
	number, err := stackenv.ParseNumber(lookup(o.Environ, "PODLANE_STACK"))
	if err != nil {
		return stackenv.Stack{}, err
	}
	stack, err := stackenv.New(root, number)
	if err != nil {
		return stack, err
	}
	for _, file := range []string{stack.ProductKubeconfig, filepath.Join(root, "bin", "podlane")} {
		if _, err := os.Stat(file); err != nil {
			return stack, fmt.Errorf("the test bed is not up: %w; hint: make up", err)
		}
	}
	return stack, nil
}

// lookup returns a variable's value, empty if it is not set; the last one counts.
func lookup(environ []string, key string) string {
	for i := len(environ) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(environ[i], key+"="); ok {
			return value
		}
	}
	return ""
}
