package image

import (
	"fmt"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is an image under the name that pods call it by.
type Image struct {
	Name   string
	Layers []*Layer
	Config v1.Config
}

// build makes the manifest and configuration.
func (i Image) build() (v1.Image, error) {
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	base, err := mutate.ConfigFile(base, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH,
		RootFS: v1.RootFS{Type: "layers"},
		Config: i.Config,
	})
	if err != nil {
		return nil, fmt.Errorf("make image %s: %w", i.Name, err)
	}
	layers := make([]v1.Layer, len(i.Layers))
	for at, l := range i.Layers {
		layers[at] = l
	}
	img, err := mutate.AppendLayers(base, layers...)
	if err != nil {
		return nil, fmt.Errorf("make image %s: %w", i.Name, err)
	}
	return img, nil
}
