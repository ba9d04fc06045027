package image

import (
	"archive/tar"
	"encoding/json"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// nameAnnotation is where containerd looks for the full name of an image in an
// archive (containerd images.AnnotationImageName).
const nameAnnotation = "io.containerd.image.name"

// named is a built image with its name.
type named struct {
	name string
	v1.Image
}

// Write writes images as one OCI layout in a tar, whole, for `ctr images import`
// and the like.
func Write(w io.Writer, images []Image) error {
	var all []named
	for _, img := range images {
		built, err := img.build()
		if err != nil {
			return err
		}
		all = append(all, named{name: img.Name, Image: built})
	}
	return writeArchive(w, all, func(v1.Hash) bool { return false })
}

// writeArchive writes images as one OCI layout in a tar. Blobs that the
// receiver has are left out, and each of the others stands in it once.
func writeArchive(w io.Writer, images []named, has func(v1.Hash) bool) error {
	a := archive{tar: tar.NewWriter(w), done: map[v1.Hash]bool{}, has: has}
	if err := a.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, img := range images {
		descriptor, err := a.image(img)
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, descriptor)
	}
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := a.file("index.json", text); err != nil {
		return err
	}
	return a.tar.Close()
}

type archive struct {
	tar  *tar.Writer
	done map[v1.Hash]bool
	has  func(v1.Hash) bool
}

func (a *archive) image(img named) (v1.Descriptor, error) {
	layers, err := img.Layers()
	if err != nil {
		return v1.Descriptor{}, err
	}
	for _, l := range layers {
		if err := a.layer(l); err != nil {
			return v1.Descriptor{}, err
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return v1.Descriptor{}, err
	}
	configName, err := img.ConfigName()
	if err != nil {
		return v1.Descriptor{}, err
	}
	if err := a.blob(configName, config); err != nil {
		return v1.Descriptor{}, err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	digest, err := img.Digest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{
		MediaType:   types.OCIManifestSchema1,
		Digest:      digest,
		Size:        int64(len(manifest)),
		Annotations: map[string]string{nameAnnotation: img.name},
	}, a.blob(digest, manifest)
}

func (a *archive) layer(l v1.Layer) error {
	digest, err := l.Digest()
	if err != nil || !a.wanted(digest) {
		return err
	}
	size, err := l.Size()
	if err != nil {
		return err
	}
	content, err := l.Compressed()
	if err != nil {
		return err
	}
	defer content.Close()
	if err := a.tar.WriteHeader(&tar.Header{Name: blobPath(digest), Mode: 0o644, Size: size}); err != nil {
		return err
	}
	_, err = io.Copy(a.tar, content)
	return err
}

func (a *archive) blob(digest v1.Hash, content []byte) error {
	if !a.wanted(digest) {
		return nil
	}
	return a.file(blobPath(digest), content)
}

// wanted reports whether a blob has to be written, and notes that it will be.
func (a *archive) wanted(digest v1.Hash) bool {
	if a.done[digest] || a.has(digest) {
		return false
	}
	a.done[digest] = true
	return true
}

func (a *archive) file(name string, content []byte) error {
	if err := a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := a.tar.Write(content)
	return err
}

func blobPath(digest v1.Hash) string { return "blobs/" + digest.Algorithm + "/" + digest.Hex }
