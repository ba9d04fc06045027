package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestLayerDependsOnNothingButItsEntries(t *testing.T) {
	entries := []Entry{
		Dir("bin", 0o755), Text("bin/sh", 0o755, "shell"), Symlink("bin/ash", "sh"), Dir("tmp", fs.ModeSticky|0o777),
	}
	reversed := slices.Clone(entries)
	slices.Reverse(reversed)
	a, b := layer(t, entries), layer(t, reversed)
	if a.digest != b.digest {
		t.Error("the order of entries changes the layer")
	}
	type file struct {
		Name, Link string
		Mode       int64
		Size       int64
		Time       time.Time
	}
	var got []file
	for _, h := range headers(t, a) {
		got = append(got, file{h.Name, h.Linkname, h.Mode, h.Size, h.ModTime.UTC()})
	}
	epoch := time.Unix(0, 0).UTC()
	want := []file{
		{"bin/", "", 0o755, 0, epoch},
		{"bin/ash", "sh", 0o777, 0, epoch},
		{"bin/sh", "", 0o755, 5, epoch},
		{"tmp/", "", 0o1777, 0, epoch},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSavedLayerIsTheSame(t *testing.T) {
	entries := []Entry{Text("a", 0o644, "content")}
	dir := filepath.Join(t.TempDir(), "layers", "a")
	for range 2 { // the second replaces the first
		if err := SaveLayer(dir, entries); err != nil {
			t.Fatal(err)
		}
	}
	saved, err := OpenLayer(dir)
	if err != nil {
		t.Fatal(err)
	}
	fresh := layer(t, entries)
	if saved.digest != fresh.digest || saved.size != fresh.size {
		t.Errorf("saved %v, %d bytes; expected %v, %d bytes", saved.digest, saved.size, fresh.digest, fresh.size)
	}
	left, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the layer there is %v, %v", left, err)
	}
}

func TestTreeAndWhatWasAdded(t *testing.T) {
	root := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree := func() []Entry {
		t.Helper()
		entries, err := Tree(root, "opt", func(path string) bool { return path == "skipped" })
		if err != nil {
			t.Fatal(err)
		}
		return entries
	}
	write("same", "1")
	write("changed", "1")
	write("skipped/file", "1")
	if err := os.Symlink("same", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"opt/changed", "opt/link", "opt/same"}, names(tree())); diff != "" {
		t.Error(diff)
	}
	before, err := Take(tree())
	if err != nil {
		t.Fatal(err)
	}
	write("changed", "2")
	write("new/file", "2")
	added, err := before.Since(tree())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"opt/changed", "opt/new", "opt/new/file"}, names(added)); diff != "" {
		t.Error(diff)
	}
}

func TestArchiveIsAnOCILayout(t *testing.T) {
	shared := layer(t, []Entry{Text("shared", 0o644, "shared")})
	images := build(t,
		Image{Name: "localhost/a:1", Layers: []*Layer{shared}, Config: v1.Config{Entrypoint: []string{"/a"}}},
		Image{Name: "localhost/b:1", Layers: []*Layer{shared, layer(t, []Entry{Text("b", 0o644, "b")})}},
	)
	var buf bytes.Buffer
	if err := writeArchive(&buf, images, func(v1.Hash) bool { return false }); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	unpack(t, &buf, dir)
	var index v1.IndexManifest
	readJSON(t, filepath.Join(dir, "index.json"), &index)
	for i, want := range []struct {
		name   string
		layers int
	}{{"localhost/a:1", 1}, {"localhost/b:1", 2}} {
		d := index.Manifests[i]
		var manifest v1.Manifest
		readJSON(t, filepath.Join(dir, blobPath(d.Digest)), &manifest)
		if name := d.Annotations[nameAnnotation]; name != want.name || len(manifest.Layers) != want.layers {
			t.Errorf("image %d is %s with %d layers", i, name, len(manifest.Layers))
		}
		for _, d := range append(manifest.Layers, manifest.Config, d) {
			checkBlob(t, dir, d)
		}
	}
}

func TestArchiveLeavesOutWhatTheReceiverHas(t *testing.T) {
	old, added := layer(t, []Entry{Text("old", 0o644, "old")}), layer(t, []Entry{Text("added", 0o644, "added")})
	images := build(t, Image{Name: "localhost/a:1", Layers: []*Layer{old, added}})
	var buf bytes.Buffer
	if err := writeArchive(&buf, images, func(h v1.Hash) bool { return h == old.digest }); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	unpack(t, &buf, dir)
	for l, want := range map[*Layer]bool{old: false, added: true} {
		_, err := os.Stat(filepath.Join(dir, blobPath(l.digest)))
		if (err == nil) != want {
			t.Errorf("layer %v: %v", l.digest, err)
		}
	}
}

func TestPushedImageIsInTheRegistry(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	img := Image{Name: "localhost/a:1", Layers: []*Layer{layer(t, []Entry{Text("a", 0o644, "a")})}}
	r := Registry{Address: strings.TrimPrefix(server.URL, "http://"), User: "u", Password: "p"}
	for range 2 { // the second changes nothing
		if err := r.Push(t.Context(), img, "public/a", "1"); err != nil {
			t.Fatal(err)
		}
	}
	answer, err := http.Get(server.URL + "/v2/public/a/manifests/1")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var manifest v1.Manifest
	if err := json.NewDecoder(answer.Body).Decode(&manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest.Layers) != 1 || manifest.Layers[0].Digest != img.Layers[0].digest {
		t.Errorf("the registry has %+v", manifest)
	}
}

func TestParseImages(t *testing.T) {
	const table = `REF                          TYPE                                       DIGEST       SIZE      PLATFORMS   LABELS
localhost/pause:1            application/vnd.oci.image.manifest.v1+json sha256:aa    1.2 MiB   linux/amd64 io.cri-containerd.image=managed
sha256:bb                    application/vnd.oci.image.manifest.v1+json sha256:bb    1.2 MiB   linux/amd64 io.cri-containerd.image=managed
`
	got := parseImages([]byte(table))
	if got["localhost/pause:1"] != "sha256:aa" || got["sha256:bb"] != "sha256:bb" {
		t.Errorf("got %v", got)
	}
}

func layer(t *testing.T, entries []Entry) *Layer {
	t.Helper()
	l, err := NewLayer(entries)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func build(t *testing.T, images ...Image) []named {
	t.Helper()
	var out []named
	for _, img := range images {
		built, err := img.build()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, named{img.Name, built})
	}
	return out
}

func headers(t *testing.T, l *Layer) []*tar.Header {
	t.Helper()
	content, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	var out []*tar.Header
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h)
	}
}

func unpack(t *testing.T, archive io.Reader, dir string) {
	t.Helper()
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func readJSON(t *testing.T, path string, out any) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, out); err != nil {
		t.Fatal(err)
	}
}

// checkBlob checks that the blob is in the layout and what its name says.
func checkBlob(t *testing.T, dir string, d v1.Descriptor) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, blobPath(d.Digest)))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	if hash(sum[:]) != d.Digest || int64(len(content)) != d.Size {
		t.Errorf("blob %v has digest %v and %d bytes, expected %d", d.Digest, hash(sum[:]), len(content), d.Size)
	}
}

func names(entries []Entry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, e.Name)
	}
	return out
}
