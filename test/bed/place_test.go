package bed

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"podlane/test/stack/stackenv"
)

func TestFindPlace(t *testing.T) {
	root := checkout(t)
	stack, err := stackenv.New(root, 3)
	if err != nil {
		t.Fatal(err)
	}
	write(t, stack.ProductKubeconfig, "")
	write(t, filepath.Join(root, "bin", "podlane"), "")
	tests := []struct {
		name     string
		environ  []string
		want     place
		hasStack bool
	}{
		{
			name: "the stack", environ: []string{"PODLANE_STACK=3", "KUBECONFIG=/another"}, hasStack: true,
			want: place{
				root: root, namespace: "podlane-ci", address: "10.103.0.1",
				adminKubeconfig: stack.AdminKubeconfig, productKubeconfig: stack.ProductKubeconfig,
			},
		},
		{
			name:    "any cluster",
			environ: []string{"PODLANE_STACK=3", "PODLANE_E2E_CLUSTER=1", "KUBECONFIG=/config", "PODLANE_E2E_ADDRESS=192.0.2.7"},
			want:    place{root: root, namespace: "podlane-ci", address: "192.0.2.7", adminKubeconfig: "/config", productKubeconfig: "/config"},
		},
		{
			name:    "a namespace in it",
			environ: []string{"PODLANE_E2E_CLUSTER=1", "KUBECONFIG=/config", "PODLANE_E2E_ADDRESS=192.0.2.7", "PODLANE_E2E_NAMESPACE=ours"},
			want:    place{root: root, namespace: "ours", address: "192.0.2.7", adminKubeconfig: "/config", productKubeconfig: "/config"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, stack, err := findPlace(t.Context(), Options{Root: root, Environ: test.environ})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(place{})); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if b := (&Bed{Stack: stack}); b.HasStack() != test.hasStack {
				t.Errorf("HasStack is %v", b.HasStack())
			}
		})
	}
}

func TestFindPlaceRefuses(t *testing.T) {
	root := checkout(t)
	tests := []struct {
		name    string
		environ []string
		want    string
	}{
		{"a stack that is not up", nil, "hint: make up"},
		{"a stack that cannot be", []string{"PODLANE_STACK=x"}, `PODLANE_STACK is "x"`},
		{"no cluster", []string{"PODLANE_E2E_CLUSTER=1"}, `KUBECONFIG is ""`},
		{"a relative path", []string{"PODLANE_E2E_CLUSTER=1", "KUBECONFIG=some/config"}, `KUBECONFIG is "some/config"`},
		{"two files", []string{"PODLANE_E2E_CLUSTER=1", "KUBECONFIG=/one:/two"}, `KUBECONFIG is "/one:/two"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := findPlace(t.Context(), Options{Root: root, Environ: test.environ})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, expected %q in it", err, test.want)
			}
		})
	}
}

func TestOutboundAddress(t *testing.T) {
	address, err := outboundAddress(t.Context())
	if err != nil {
		t.Skip("this machine has no way out:", err)
	}
	if _, err := netip.ParseAddr(address); err != nil {
		t.Error(err)
	}
}

func TestLookup(t *testing.T) {
	environ := []string{"A=1", "AB=2", "A=3=4", "EMPTY="}
	for key, want := range map[string]string{"A": "3=4", "AB": "2", "EMPTY": "", "NONE": ""} {
		if got := lookup(environ, key); got != want {
			t.Errorf("%s is %q, expected %q", key, got, want)
		}
	}
}

// checkout makes what FindRoot takes for one.
func checkout(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write(t, filepath.Join(root, "go.mod"), "module podlane\n")
	return root
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
