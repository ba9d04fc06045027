package stack

import (
	"context"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"podlane/internal/helperimage"
	"podlane/internal/image"
	"podlane/test/stack/stackenv"
)

const systemPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// images are all images of the node. bin has the checkout's programs.
func images(ctx context.Context, big layers, bin string) ([]image.Image, error) {
	var failed error
	small := func(entries ...image.Entry) *image.Layer {
		l, err := image.NewLayer(entries)
		if err != nil && failed == nil {
			failed = err
		}
		return l
	}
	busybox, err := findBusybox(ctx)
	if err != nil {
		return nil, err
	}
	program := func(name string) string { return filepath.Join(bin, name) }
	helper := program("podlane-helper")
	system := v1.Config{Env: []string{systemPath}, Cmd: []string{"bash"}}

	list := []image.Image{
		{
			Name:   stackenv.ImagePause,
			Layers: []*image.Layer{small(image.Program("pause", program("pause")))},
			Config: v1.Config{Entrypoint: []string{"/pause"}},
		},
		{
			Name:   stackenv.ImageHelper,
			Layers: []*image.Layer{big.helper, small(image.Program("usr/bin/podlane-helper", helper))},
			Config: helperimage.Config("dev"),
		},
		{
			Name: stackenv.ImageHelperGitLab,
			Layers: []*image.Layer{big.tools, small(
				image.Program("usr/bin/podlane-helper", helper),
				image.Symlink("usr/bin/gitlab-runner-helper", "podlane-helper"),
			)},
			Config: system,
		},
		{Name: stackenv.ImageHelperBare, Layers: []*image.Layer{big.tools}, Config: system},
		{Name: stackenv.ImageJob, Layers: []*image.Layer{big.tools}, Config: system},
		{
			Name:   stackenv.ImageJobBusybox,
			Layers: []*image.Layer{small(busybox.system()...)},
			Config: v1.Config{Env: []string{systemPath}, Cmd: []string{"sh"}},
		},
		{
			Name: stackenv.ImageJobNonroot,
			Layers: []*image.Layer{big.tools, small(
				image.Text("entrypoint.sh", 0o755, "#!/bin/sh\necho 'the entrypoint of the image has run' >&2\nexit 99\n"),
				image.Entry{Name: "home/user", Mode: image.Dir("", 0o755).Mode, UID: 1000, GID: 1000},
			)},
			Config: v1.Config{
				Env: []string{systemPath, "HOME=/home/user"}, User: "1000:1000", WorkingDir: "/home/user",
				Entrypoint: []string{"/entrypoint.sh"},
			},
		},
		{
			Name: stackenv.ImageJobKaniko,
			Layers: []*image.Layer{small(append(busybox.installed("busybox"),
				image.Dir("kaniko", 0o755),
				image.Program("kaniko/executor", program("noshell")),
				image.Dir("workspace", 0o755),
			)...)},
			Config: v1.Config{
				Env: []string{"PATH=/usr/local/bin:/kaniko:/busybox", "HOME=/root", "USER=root"}, WorkingDir: "/workspace",
				Entrypoint: []string{"/kaniko/executor"},
			},
		},
		{
			Name:   stackenv.ImageJobNoShell,
			Layers: []*image.Layer{small(image.Program("noshell", program("noshell")))},
			Config: v1.Config{Entrypoint: []string{"/noshell"}},
		},
		{
			Name:   stackenv.ImageService,
			Layers: []*image.Layer{small(image.Program("service", program("service")))},
			Config: v1.Config{Env: []string{systemPath}, Entrypoint: []string{"/service"}},
		},
		{
			Name:   stackenv.ImageGo,
			Layers: []*image.Layer{big.tools, big.node, big.golang, big.goCache, big.goModules},
			Config: v1.Config{
				Env: []string{
					"PATH=/usr/local/go/bin:/root/go/bin:" + systemPath[len("PATH="):],
					// Jobs work without a network: what they need is in the image
					// or in their repository.
					"GOTOOLCHAIN=local", "GOPROXY=file:///" + goModulesDir, "CGO_ENABLED=0", "GOCACHE=/" + goCacheDir,
				},
				Cmd: []string{"bash"},
			},
		},
	}
	return list, failed
}
