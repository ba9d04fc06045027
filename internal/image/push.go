package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Registry is one that speaks plain HTTP, and somebody who may push to it.
type Registry struct {
	Address  string // host:port
	User     string
	Password string
}

// Push puts the image at repository:tag, by the two requests that the
// distribution specification has for it: a blob in one POST, the manifest.
func (r Registry) Push(ctx context.Context, img Image, repository, tag string) error {
	built, err := img.build()
	if err != nil {
		return err
	}
	if err := r.push(ctx, built, repository, tag); err != nil {
		return fmt.Errorf("push %s/%s:%s: %w", r.Address, repository, tag, err)
	}
	return nil
}

func (r Registry) push(ctx context.Context, img v1.Image, repository, tag string) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		content, err := l.Compressed()
		if err != nil {
			return err
		}
		digest, err := l.Digest()
		if err != nil {
			return err
		}
		if err := r.blob(ctx, repository, digest, content); err != nil {
			return err
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	digest, err := img.ConfigName()
	if err != nil {
		return err
	}
	if err := r.blob(ctx, repository, digest, bytes.NewReader(config)); err != nil {
		return err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	mediaType, err := img.MediaType()
	if err != nil {
		return err
	}
	return r.send(ctx, http.MethodPut, repository+"/manifests/"+tag, string(mediaType), bytes.NewReader(manifest))
}

func (r Registry) blob(ctx context.Context, repository string, digest v1.Hash, content io.Reader) error {
	return r.send(ctx, http.MethodPost, repository+"/blobs/uploads/?digest="+digest.String(), "application/octet-stream", content)
}

func (r Registry) send(ctx context.Context, method, path, contentType string, body io.Reader) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+r.Address+"/v2/"+path, body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", contentType)
	request.SetBasicAuth(r.User, r.Password)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10)) // the status says enough
		return fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, bytes.TrimSpace(text))
	}
	return nil
}
