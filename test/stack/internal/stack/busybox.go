package stack

import (
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"

	"podlane/internal/image"
)

// busybox is this machine's, with the names that it answers to.
type busybox struct {
	path    string
	applets []string
}

// findBusybox refuses one that needs a libc: images have none.
func findBusybox(ctx context.Context) (busybox, error) {
	const path = "/bin/busybox"
	f, err := elf.Open(path)
	if err != nil {
		return busybox{}, fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return busybox{}, fmt.Errorf("%s is linked dynamically: install the package busybox-static", path)
		}
	}
	names, err := exec.CommandContext(ctx, path, "--list").Output()
	if err != nil {
		return busybox{}, fmt.Errorf("ask %s for its applets: %w", path, err)
	}
	return busybox{path: path, applets: strings.Fields(string(names))}, nil
}

// installed is busybox in a folder, with a link for each applet.
func (b busybox) installed(dir string) []image.Entry {
	out := []image.Entry{image.Dir(dir, 0o755), image.Program(dir+"/busybox", b.path)}
	for _, applet := range b.applets {
		if applet != "busybox" {
			out = append(out, image.Symlink(dir+"/"+applet, "busybox"))
		}
	}
	return out
}

// system is a root file system of busybox and what scripts expect.
func (b busybox) system() []image.Entry {
	return append(b.installed("bin"),
		image.Dir("etc", 0o755),
		image.Text("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
		image.Text("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n"),
		image.Dir("root", 0o700),
		image.Dir("tmp", fs.ModeSticky|0o777),
	)
}
