// Package architecture holds the rules about who may import whom that only the
// whole import graph can break; .golangci.yml has those that one file can.
package architecture

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// sdks are too large for programs that work inside a job's pod.
var sdks = []string{
	"k8s.io/client-go",
	"github.com/aws/aws-sdk-go",
	"github.com/aws/aws-sdk-go-v2",
	"github.com/hashicorp/vault",
}

// rules name packages and what they must not link, by whatever way: paths with
// all that is below them.
var rules = []struct {
	pkg  string
	bans []string
}{
	{"podlane/cmd/podlane-helper", append([]string{"podlane/executor", "podlane/test"}, sdks...)},
	{"podlane/podagent", append([]string{"podlane/executor", "podlane/cmd", "podlane/test"}, sdks...)},
	{"podlane/internal/artifacts", append([]string{"podlane/executor", "podlane/cmd", "podlane/test"}, sdks...)},
	{"podlane/vaultauth", []string{"podlane/executor", "podlane/podagent", "podlane/cacheclient", "podlane/cmd", "podlane/test", "k8s.io", "github.com/aws"}},
	{"podlane/cmd/podlane", []string{"podlane/test"}},
}

func TestDependencies(t *testing.T) {
	for _, rule := range rules {
		t.Run(strings.TrimPrefix(rule.pkg, "podlane/"), func(t *testing.T) {
			for _, dep := range depsOf(t, rule.pkg) {
				if i := slices.IndexFunc(rule.bans, func(ban string) bool { return within(dep, ban) }); i >= 0 {
					t.Errorf("%s links %s, but must not link %s; `go mod why -m` or `go list -deps` says by which way", rule.pkg, dep, rule.bans[i])
				}
			}
		})
	}
}

// within reports whether a package is path or lies below it.
func within(pkg, path string) bool {
	rest, ok := strings.CutPrefix(pkg, path)
	return ok && (rest == "" || rest[0] == '/')
}

// depsOf returns everything that a package links.
func depsOf(t *testing.T, pkg string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{.ImportPath}}\t{{if .Module}}{{if .Module.Main}}{{.Dir}}{{end}}{{end}}", pkg)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v\n%s", pkg, err, stderr.String())
	}
	var deps []string
	for line := range strings.Lines(string(out)) {
		dep, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		deps = append(deps, dep)
		if dir != "" {
			noticeChanges(t, dir)
		}
	}
	return deps
}

// noticeChanges makes `go test` run this test again when a file of a package
// changes: what another program reads does not count against a cached result.
func noticeChanges(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.ReadDir(dir); err != nil {
		t.Fatal(err)
	}
}

func TestWithin(t *testing.T) {
	for pkg, want := range map[string]bool{
		"k8s.io/client-go":       true,
		"k8s.io/client-go/rest":  true,
		"k8s.io/client-gopher":   false,
		"k8s.io/api":             false,
		"example/k8s.io/client-": false,
	} {
		if got := within(pkg, "k8s.io/client-go"); got != want {
			t.Errorf("within(%q) = %v, want %v", pkg, got, want)
		}
	}
}
