// Package debian gets things from the Debian archive: packages for this
// machine and root file systems for images.
package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// needed are files that the stack uses on this machine, each with the package
// that brings it. The file decides: it may well come from elsewhere.
var needed = []struct{ file, pkg string }{
	{"/usr/bin/containerd", "containerd"},
	{"/usr/bin/ctr", "containerd"},
	{"/usr/sbin/runc", "runc"},
	{"/usr/lib/cni/bridge", "containernetworking-plugins"},
	{"/bin/busybox", "busybox-static"},
	{"/usr/sbin/debootstrap", "debootstrap"},
	{"/sbin/ip", "iproute2"},
}

// Missing returns the packages that this machine lacks.
func Missing() []string {
	return missing(func(file string) bool {
		_, err := os.Stat(file)
		return err == nil
	})
}

func missing(exists func(file string) bool) []string {
	var out []string
	seen := map[string]bool{}
	for _, n := range needed {
		if !exists(n.file) && !seen[n.pkg] {
			seen[n.pkg] = true
			out = append(out, n.pkg)
		}
	}
	return out
}

// Ensure installs what is missing. Where it can't (no root, no apt-get) it says
// what there is to install.
func Ensure(ctx context.Context, log io.Writer) error {
	packages := Missing()
	if len(packages) == 0 {
		return nil
	}
	_, err := exec.LookPath("apt-get")
	if err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("this machine lacks what these Debian packages bring: %s; install them", strings.Join(packages, " "))
	}
	if err := aptGet(ctx, log, "update"); err != nil {
		return err
	}
	args := append([]string{"install", "--yes", "--no-install-recommends"}, packages...)
	if err := aptGet(ctx, log, args...); err != nil {
		return err
	}
	if left := Missing(); len(left) > 0 {
		return fmt.Errorf("packages %s are installed, but what is needed of them is not in its place", strings.Join(left, " "))
	}
	return nil
}

func aptGet(ctx context.Context, log io.Writer, args ...string) error {
	return run(ctx, log, "apt-get", args...)
}

// run runs a program, its output to log, and puts its last words into the error.
func run(ctx context.Context, log io.Writer, name string, args ...string) error {
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(cmd.Environ(), "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdout = io.MultiWriter(&output, log)
	cmd.Stderr = cmd.Stdout
	// A program that it has started may keep its output open when it is killed.
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(output.String()), "\n")
	last := strings.Join(lines[max(0, len(lines)-10):], "\n")
	return errors.Join(fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err), errors.New(last))
}
