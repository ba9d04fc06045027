package debian

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Release is the Debian that this machine runs, and where its packages come
// from.
type Release struct {
	Codename   string
	mirror     string
	components []string
}

// ThisRelease asks apt: the archive that this machine uses is one it can reach.
func ThisRelease(ctx context.Context) (Release, error) {
	osRelease, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return Release{}, fmt.Errorf("find out this machine's release: %w", err)
	}
	codename := osReleaseValue(osRelease, "VERSION_CODENAME")
	if codename == "" {
		return Release{}, errors.New("/etc/os-release has no VERSION_CODENAME: images can only be made on Debian or a derivative")
	}
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return Release{}, fmt.Errorf("ask apt-get for its archives: %w", err)
	}
	r := parseTargets(out, codename)
	if r.mirror == "" {
		return Release{}, fmt.Errorf("apt's sources have no archive of %s", codename)
	}
	return r, nil
}

// Site is the URL below which the mirror has debian/, or "".
func (r Release) Site() string {
	site, ok := strings.CutSuffix(strings.TrimSuffix(r.mirror, "/"), "/debian")
	if !ok {
		return ""
	}
	return site
}

func osReleaseValue(text []byte, key string) string {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), key+"="); ok {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}

// parseTargets takes the first archive of the release, with its components.
func parseTargets(out []byte, codename string) Release {
	r := Release{Codename: codename}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 || fields[0] != codename {
			continue
		}
		if r.mirror == "" {
			r.mirror = fields[2]
		}
		if r.mirror == fields[2] {
			r.components = append(r.components, fields[1])
		}
	}
	return r
}

// Bootstrap makes dir the root of a minimal system.
func (r Release) Bootstrap(ctx context.Context, dir string, log io.Writer) error {
	err := run(ctx, log, "debootstrap", "--variant=minbase",
		"--components="+strings.Join(r.components, ","), r.Codename, dir, r.mirror)
	if err != nil {
		return err
	}
	return run(ctx, log, "chroot", dir, "apt-get", "update")
}

// Install adds packages to the root file system at dir.
func Install(ctx context.Context, dir string, log io.Writer, packages ...string) error {
	args := append([]string{dir, "apt-get", "install", "--yes", "--no-install-recommends"}, packages...)
	return run(ctx, log, "chroot", args...)
}

// clutter is what an image has no use for.
var clutter = []string{
	"dev", "proc", "sys", "run",
	"etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/machine-id",
	"usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man",
	"var/cache", "var/lib/apt/lists", "var/log",
}

// IsClutter reports whether an image can do without a path, relative to its
// root. The directories themselves are wanted, their contents aren't.
func IsClutter(path string) bool {
	for _, c := range clutter {
		if strings.HasPrefix(path, c+"/") || path == c && filepath.Dir(c) == "etc" {
			return true
		}
	}
	return false
}
