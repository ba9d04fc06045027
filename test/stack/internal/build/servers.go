package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Server is a program of somebody else's, built from a module of its own under
// test/stack/servers. To add one: a folder there and an entry in Servers.
type Server struct {
	Name    string
	Module  string // folder under test/stack/servers
	Package string // what to build in the module
	LDFlags string // beside -s -w
}

// Servers are all servers, in the order in which they are built.
var Servers = []Server{
	{
		Name: "kube", Module: "kube", Package: ".",
		// Without a version the API server says v0.0.0, which clients refuse.
		LDFlags: "-X k8s.io/component-base/version.gitVersion=v1.34.4" +
			" -X k8s.io/component-base/version.gitMajor=1" +
			" -X k8s.io/component-base/version.gitMinor=34",
	},
	{Name: "etcd", Module: "kube", Package: "go.etcd.io/etcd/server/v3"},
	{Name: "vault", Module: "vault", Package: "."},
	{Name: "minio", Module: "minio", Package: "."},
}

// Versitygw is a second S3 server, for those who ask for it.
var Versitygw = Server{Name: "versitygw", Module: "versitygw", Package: "github.com/versity/versitygw/cmd/versitygw"}

// Builder builds servers of the checkout at Root into folders under Cache that
// all checkouts share.
type Builder struct {
	Root  string
	Cache string
	// Say reports a step that takes long.
	Say func(format string, args ...any)
}

// Server returns the path of the built program. One that the cache hasn't got
// takes minutes; they are built one at a time, whoever asks.
func (b Builder) Server(ctx context.Context, s Server) (string, error) {
	module := filepath.Join(b.Root, "test", "stack", "servers", s.Module)
	version, err := s.version(module)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", s.Name, err)
	}
	dir := filepath.Join(b.Cache, "servers", s.Name+"-"+version)
	program := filepath.Join(dir, s.Name)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	unlock, err := Lock(ctx, filepath.Join(b.Cache, "servers", "lock"), "build of "+s.Name+" in "+b.Root, func(holder string) {
		b.Say("waiting for the %s to end", holder)
	})
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	b.Say("building %s; minutes, unless Go has compiled it before", s.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	tmp := program + ".tmp"
	if err := goBuild(ctx, module, tmp, "-s -w "+s.LDFlags, s.Package); err != nil {
		return "", fmt.Errorf("build %s: %w", s.Name, err)
	}
	return program, os.Rename(tmp, program)
}

// version is a digest of all that decides what gets built.
func (s Server) version(module string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s/%s %q %q\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, s.Package, s.LDFlags)
	names, err := filepath.Glob(filepath.Join(module, "*.go"))
	if err != nil {
		return "", err
	}
	names = append(names, filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum"))
	slices.Sort(names)
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", filepath.Base(name), len(content), content)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// goBuild makes static programs: they run in images that have no libc. If out
// is a folder, it gets one program for each package.
func goBuild(ctx context.Context, dir, out, ldflags string, packages ...string) error {
	args := append([]string{"build", "-trimpath", "-ldflags", strings.TrimSpace(ldflags), "-o", out}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	// The compilers that go has started may keep its output open when it is killed.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", strings.Join(packages, " "), err, bytes.TrimSpace(output.Bytes()))
	}
	return nil
}
