// Package image makes container images out of files, without a daemon, and
// hands them to containerd and to a registry.
package image

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Layer is an uncompressed layer. It goes from one folder of a machine to
// another: compressing it would cost more than it saves.
type Layer struct {
	digest v1.Hash
	size   int64
	open   func() (io.ReadCloser, error)
}

var _ v1.Layer = (*Layer)(nil)

// Digest is that of the tar itself.
func (l *Layer) Digest() (v1.Hash, error) { return l.digest, nil }

// DiffID is Digest: nothing is compressed.
func (l *Layer) DiffID() (v1.Hash, error) { return l.digest, nil }

// Compressed is the tar.
func (l *Layer) Compressed() (io.ReadCloser, error) { return l.open() }

// Uncompressed is the tar.
func (l *Layer) Uncompressed() (io.ReadCloser, error) { return l.open() }

// Size is the tar's, in bytes.
func (l *Layer) Size() (int64, error) { return l.size, nil }

// MediaType says that nothing is compressed.
func (l *Layer) MediaType() (types.MediaType, error) { return types.OCIUncompressedLayer, nil }

// NewLayer packs a few small files. It holds them in memory.
func NewLayer(entries []Entry) (*Layer, error) {
	var buf bytes.Buffer
	h := sha256.New()
	if err := pack(io.MultiWriter(&buf, h), entries); err != nil {
		return nil, err
	}
	return &Layer{
		digest: hash(h.Sum(nil)),
		size:   int64(buf.Len()),
		open:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil },
	}, nil
}

// SaveLayer packs entries into the layer folder dir, in one step. The caller
// sees to it that nobody else saves the same.
func SaveLayer(dir string, entries []Entry) error {
	tmp := dir + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	f, err := os.Create(filepath.Join(tmp, "layer.tar"))
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if err := pack(io.MultiWriter(f, h), entries); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	digest := hash(h.Sum(nil)).String()
	if err := os.WriteFile(filepath.Join(tmp, "digest"), []byte(digest), 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// OpenLayer returns the layer that SaveLayer saved in dir.
func OpenLayer(dir string) (*Layer, error) {
	path := filepath.Join(dir, "layer.tar")
	text, err := os.ReadFile(filepath.Join(dir, "digest"))
	if err != nil {
		return nil, err
	}
	digest, err := v1.NewHash(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("read digest of layer %s: %w", dir, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return &Layer{
		digest: digest,
		size:   info.Size(),
		open:   func() (io.ReadCloser, error) { return os.Open(path) },
	}, nil
}

func hash(sum []byte) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sum)}
}
