package stack

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"podlane/internal/helperimage"
	"podlane/internal/image"
	"podlane/test/stack/internal/build"
	"podlane/test/stack/internal/debian"
	"podlane/test/stack/internal/host"
)

// recipe is part of every cached layer's name: raise it when the way in which
// layers are made changes.
const recipe = "2"

// debianLayers are the layers with packages, each on top of the one before.
var debianLayers = []struct {
	name     string
	packages []string
}{
	{"tools", []string{"bash", "ca-certificates", "curl", "git", "git-lfs", "make", "procps"}},
	{"node", []string{"nodejs"}},
}

// layers are the large ones, which all checkouts share.
type layers struct {
	tools, node, golang, goCache, goModules *image.Layer
	// helper is what is shipped as the helper image, but for podlane-helper.
	helper *image.Layer
}

// bigLayers returns them from the cache, and makes those that it lacks.
func (m *Manager) bigLayers(ctx context.Context) (big layers, err error) {
	unlock, err := build.Lock(ctx, filepath.Join(m.Cache, "layers", "lock"), "making of images in "+m.Stack.Root, func(holder string) {
		m.say("waiting for the %s to end", holder)
	})
	if err != nil {
		return layers{}, err
	}
	defer unlock()
	scratch := filepath.Join(m.Cache, "layers", "scratch")
	if err := removeScratch(scratch); err != nil {
		return layers{}, err
	}
	defer func() { err = errors.Join(err, removeScratch(scratch)) }()
	system, err := m.systemLayers(ctx, scratch)
	if err != nil {
		return layers{}, fmt.Errorf("make root file system: %w", err)
	}
	golang, cache, err := m.goLayers(ctx, scratch)
	if err != nil {
		return layers{}, fmt.Errorf("make layers with go: %w", err)
	}
	modules, err := m.moduleLayer(ctx)
	if err != nil {
		return layers{}, fmt.Errorf("make a layer with go modules: %w", err)
	}
	helper, err := m.helperLayer(ctx)
	if err != nil {
		m.say("taking the jobs' image for the helper image: its own packages cannot be had: %v", err)
		helper = system[0]
	}
	return layers{tools: system[0], node: system[1], golang: golang, goCache: cache, goModules: modules, helper: helper}, nil
}

// helperLayer takes the pinned packages from the mirror that this machine uses.
func (m *Manager) helperLayer(ctx context.Context) (*image.Layer, error) {
	lock, err := helperimage.Pinned()
	if err != nil {
		return nil, err
	}
	release, err := debian.ThisRelease(ctx)
	if err != nil {
		return nil, err
	}
	return m.layer("helper", lock.Key(runtime.GOARCH), func() ([]image.Entry, error) {
		m.say("fetching the helper image's packages")
		source := helperimage.Source{Mirror: cmp.Or(release.Site(), helperimage.DefaultMirror), Cache: filepath.Join(m.Cache, "packages")}
		return source.Tree(ctx, lock, runtime.GOARCH)
	})
}

// removeScratch removes the folder in which layers are made, also after a
// command that was killed: debootstrap then leaves /proc mounted there.
func removeScratch(dir string) error {
	if err := host.UnmountBelow(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// systemLayers are debianLayers' own.
func (m *Manager) systemLayers(ctx context.Context, scratch string) ([]*image.Layer, error) {
	release, err := debian.ThisRelease(ctx)
	if err != nil {
		return nil, err
	}
	var dirs []string
	key := release.Codename
	for _, l := range debianLayers {
		key += " " + strings.Join(l.packages, " ")
		dirs = append(dirs, m.layerDir(l.name, key))
	}
	if found, err := openLayers(dirs); err == nil {
		return found, nil
	}
	if err := m.makeSystem(ctx, release, filepath.Join(scratch, "root"), dirs); err != nil {
		return nil, err
	}
	return openLayers(dirs)
}

func openLayers(dirs []string) ([]*image.Layer, error) {
	var out []*image.Layer
	for _, dir := range dirs {
		l, err := image.OpenLayer(dir)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// makeSystem installs a system in root and cuts it into layers on the way.
func (m *Manager) makeSystem(ctx context.Context, release debian.Release, root string, dirs []string) error {
	m.say("making a root file system of %s; about a minute", release.Codename)
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		return err
	}
	log, err := m.openLog("rootfs.log")
	if err != nil {
		return err
	}
	defer log.Close()
	if err := release.Bootstrap(ctx, root, log); err != nil {
		return err
	}
	before := image.Snapshot{}
	for i, l := range debianLayers {
		if err := debian.Install(ctx, root, log, l.packages...); err != nil {
			return err
		}
		tree, err := image.Tree(root, "", debian.IsClutter)
		if err != nil {
			return err
		}
		added, err := before.Since(tree)
		if err != nil {
			return err
		}
		if err := image.SaveLayer(dirs[i], added); err != nil {
			return err
		}
		if before, err = image.Take(tree); err != nil {
			return err
		}
	}
	return nil
}

// layerDir is where the layer that is made from what key says is cached.
func (m *Manager) layerDir(name, key string) string {
	sum := sha256.Sum256([]byte(recipe + " " + key))
	return filepath.Join(m.Cache, "layers", name+"-"+hex.EncodeToString(sum[:8]))
}
