package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"podlane/test/stack/internal/image"
)

// goCacheDir is GOCACHE in the image.
const goCacheDir = "var/lib/go-build"

// goCached are the packages, with all that they import, which jobs need not
// compile: a web server with its tests took 21 s without.
var goCached = []string{
	"bufio", "context", "embed", "encoding/json", "errors", "flag", "fmt", "html/template", "io/fs",
	"log/slog", "maps", "net/http/httptest", "os/exec", "os/signal", "regexp", "slices", "sort",
	"strconv", "strings", "sync/atomic", "testing", "testing/fstest", "testing/internal/testdeps",
}

// goLayers are this machine's Go in its usual place, and compiled packages.
func (m *Manager) goLayers(ctx context.Context) (golang, cache *image.Layer, err error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOVERSION").Output()
	if err != nil {
		return nil, nil, fmt.Errorf("go env: %w", err)
	}
	root, version, _ := strings.Cut(string(bytes.TrimSpace(out)), "\n")
	version += " " + runtime.GOARCH
	golang, err = m.layer("go", version, func() ([]image.Entry, error) {
		m.say("packing %s", version)
		return image.Tree(root, "usr/local/go", unusedInGoroot)
	})
	if err != nil {
		return nil, nil, err
	}
	tmp, err := os.MkdirTemp(filepath.Join(m.Cache, "layers"), "gocache-")
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	cache, err = m.layer("gocache", version+" "+strings.Join(goCached, " "), func() ([]image.Entry, error) {
		m.say("compiling Go's packages for jobs; half a minute")
		return goCache(ctx, tmp)
	})
	return golang, cache, err
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

// goCache compiles into tmp. Go drops what was not used for days from a cache,
// and must find nothing to drop.
func goCache(ctx context.Context, tmp string) ([]image.Entry, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build"}, goCached...)...)
	cmd.Dir = tmp
	cmd.Env = append(os.Environ(), "GOCACHE="+tmp, "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w: %s", err, bytes.TrimSpace(out))
	}
	entries, err := image.Tree(tmp, goCacheDir, nil)
	for i := range entries {
		entries[i].Time = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	}
	return entries, err
}

// unusedInGoroot are Go's own tests and documentation: a third of its size.
func unusedInGoroot(path string) bool {
	switch path {
	case "api", "doc", "misc", "test":
		return true
	}
	return filepath.Base(path) == "testdata" || strings.HasSuffix(path, "_test.go")
}
