package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"podlane/internal/image"
)

// goCacheDir is GOCACHE in the image.
const goCacheDir = "var/lib/go-build"

// goCached are the packages, with all that they import, which jobs need not
// compile: the first build of a web server took 21 s without, 1.3 s with them.
var goCached = []string{
	"bufio", "embed", "encoding/json", "flag", "html/template", "log/slog", "maps",
	"net/http/httptest", "os/exec", "os/signal", "regexp", "testing/fstest",
}

// goCacheSteps use the packages in the ways in which jobs do: each leaves other
// things in Go's cache.
var goCacheSteps = [][]string{{"build", "."}, {"test", "."}, {"vet", "."}}

// goLayers are this machine's Go in its usual place, and compiled packages.
func (m *Manager) goLayers(ctx context.Context, scratch string) (golang, cache *image.Layer, err error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOVERSION").Output()
	if err != nil {
		return nil, nil, fmt.Errorf("go env: %w", err)
	}
	root, version, _ := strings.Cut(string(bytes.TrimSpace(out)), "\n")
	version += " " + runtime.GOARCH
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, nil, err
	}
	golang, err = m.layer("go", version, func() ([]image.Entry, error) {
		m.say("packing %s", version)
		return image.Tree(root, "usr/local/go", unusedInGoroot)
	})
	if err != nil {
		return nil, nil, err
	}
	cache, err = m.layer("gocache", fmt.Sprint(version, goCached, goCacheSteps), func() ([]image.Entry, error) {
		m.say("compiling Go's packages for jobs; half a minute")
		return goCache(ctx, filepath.Join(scratch, "go"))
	})
	return golang, cache, err
}

// goModulesDir is a module proxy's folder in the image.
const goModulesDir = "var/lib/go-modules"

// moduleLayer is a proxy for the modules that the example's backend needs: its
// jobs have no network.
func (m *Manager) moduleLayer(ctx context.Context) (*image.Layer, error) {
	backend := filepath.Join(m.Stack.Root, "examples", "monorepo", "backend")
	sums, err := os.ReadFile(filepath.Join(backend, "go.sum"))
	if err != nil {
		return nil, err
	}
	return m.layer("gomodules", string(sums), func() ([]image.Entry, error) {
		cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json")
		cmd.Dir = backend
		cmd.Env = append(cmd.Environ(), "GOFLAGS=", "GOWORK=off")
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("go mod download: %w: %s", err, out)
		}
		var entries []image.Entry
		for modules := json.NewDecoder(bytes.NewReader(out)); modules.More(); {
			var module struct{ Info, GoMod, Zip string }
			if err := modules.Decode(&module); err != nil {
				return nil, fmt.Errorf("go mod download: %w", err)
			}
			for _, file := range []string{module.Info, module.GoMod, module.Zip} {
				content, err := os.ReadFile(file)
				if err != nil {
					return nil, err
				}
				_, name, _ := strings.Cut(filepath.ToSlash(file), "/cache/download/")
				entries = append(entries, image.Text(goModulesDir+"/"+name, 0o644, string(content)))
			}
		}
		return entries, nil
	})
}

// layer returns the layer that is cached for key, or makes it from entries.
func (m *Manager) layer(name, key string, entries func() ([]image.Entry, error)) (*image.Layer, error) {
	dir := m.layerDir(name, key)
	if l, err := image.OpenLayer(dir); !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	content, err := entries()
	if err != nil {
		return nil, err
	}
	if err := image.SaveLayer(dir, content); err != nil {
		return nil, err
	}
	return image.OpenLayer(dir)
}

// goCache compiles a module that imports goCached, below dir. Go drops what was
// not used for days from a cache, and must find nothing to drop.
func goCache(ctx context.Context, dir string) ([]image.Entry, error) {
	module, cache := filepath.Join(dir, "module"), filepath.Join(dir, "cache")
	if err := writeModule(module); err != nil {
		return nil, err
	}
	for _, step := range goCacheSteps {
		cmd := exec.CommandContext(ctx, "go", step...)
		cmd.Dir = module
		cmd.Env = append(cmd.Environ(), "GOCACHE="+cache, "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go %s: %w: %s", strings.Join(step, " "), err, bytes.TrimSpace(out))
		}
	}
	entries, err := image.Tree(cache, goCacheDir, nil)
	for i := range entries {
		entries[i].Time = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	}
	return entries, err
}

func writeModule(dir string) error {
	var source strings.Builder
	source.WriteString("package cached\n")
	for _, name := range goCached {
		fmt.Fprintf(&source, "import _ %q\n", name)
	}
	for name, content := range map[string]string{
		"go.mod":         "module cached\n",
		"cached.go":      source.String(),
		"cached_test.go": "package cached\n\nimport \"testing\"\n\nfunc TestNothing(*testing.T) {}\n",
	} {
		if err := writeIfChanged(filepath.Join(dir, name), 0o644, []byte(content)); err != nil {
			return err
		}
	}
	return nil
}

// unusedInGoroot are Go's own tests and documentation: a third of its size.
func unusedInGoroot(path string) bool {
	switch path {
	case "api", "doc", "misc", "test":
		return true
	}
	return filepath.Base(path) == "testdata" || strings.HasSuffix(path, "_test.go")
}
