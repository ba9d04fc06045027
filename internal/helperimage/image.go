package helperimage

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"podlane/internal/image"
)

// Config is the image's.
func Config(version string) v1.Config {
	return v1.Config{
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME=" + Home},
		Cmd: []string{"bash"},
		Labels: map[string]string{
			"org.opencontainers.image.title":   "podlane helper",
			"org.opencontainers.image.version": version,
		},
	}
}

// Write makes dir an OCI layout with one image for all architectures, and beside
// it what each holds: ARCH.spdx.json. helper names podlane-helper's binary for an
// architecture. It returns the digest of the whole.
func Write(ctx context.Context, dir, version string, source Source, lock Lock, helper func(arch string) string) (v1.Hash, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return v1.Hash{}, err
	}
	for _, arch := range Arches {
		img, err := build(ctx, version, arch, source, lock, helper(arch))
		if err != nil {
			return v1.Hash{}, fmt.Errorf("image for %s: %w", arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
		digest, err := img.Digest()
		if err != nil {
			return v1.Hash{}, err
		}
		bill, err := billOfMaterials(version, arch, lock, digest, helper(arch))
		if err != nil {
			return v1.Hash{}, err
		}
		text, err := json.MarshalIndent(bill, "", "  ")
		if err != nil {
			return v1.Hash{}, err
		}
		if err := os.WriteFile(filepath.Join(dir, arch+".spdx.json"), append(text, '\n'), 0o644); err != nil {
			return v1.Hash{}, err
		}
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return v1.Hash{}, err
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": version})); err != nil {
		return v1.Hash{}, err
	}
	return index.Digest()
}

// build makes an image of two layers, so that a new podlane-helper does not bring
// a new git with it.
func build(ctx context.Context, version, arch string, source Source, lock Lock, helper string) (v1.Image, error) {
	tree, err := source.Tree(ctx, lock, arch)
	if err != nil {
		return nil, err
	}
	var layers []v1.Layer
	for _, entries := range [][]image.Entry{tree, {image.Program("usr/bin/podlane-helper", helper)}} {
		l, err := image.NewLayer(entries)
		if err != nil {
			return nil, err
		}
		compressed, err := tarball.LayerFromOpener(l.Uncompressed, tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
		if err != nil {
			return nil, err
		}
		layers = append(layers, compressed)
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	base, err = mutate.ConfigFile(base, &v1.ConfigFile{OS: "linux", Architecture: arch, RootFS: v1.RootFS{Type: "layers"}, Config: Config(version)})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(base, layers...)
}
