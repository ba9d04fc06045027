package image

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Containerd is the daemon at a socket, as Kubernetes sees it.
type Containerd struct{ Socket string }

// Import makes containerd have images, and returns the names of those it
// hadn't. Only layers that it lacks are sent.
func (c Containerd) Import(ctx context.Context, images []Image) ([]string, error) {
	missing, err := c.missing(ctx, images)
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	// What is listed below must not be collected before it is used.
	if err := c.collect(ctx); err != nil {
		return nil, err
	}
	blobs, err := c.ctr(ctx, nil, "content", "ls", "--quiet")
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for digest := range strings.FieldsSeq(string(blobs)) {
		have[digest] = true
	}
	reader, writer := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := writeArchive(writer, missing, func(h v1.Hash) bool { return have[h.String()] })
		writer.CloseWithError(err)
		written <- err
	}()
	_, err = c.ctr(ctx, reader, "images", "import", "-")
	reader.CloseWithError(io.ErrClosedPipe)
	if writeErr := <-written; err == nil {
		err = writeErr
	}
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	names := make([]string, len(missing))
	for at, img := range missing {
		names[at] = img.name
	}
	return names, nil
}

// collect makes containerd remove what nothing refers to any more, which it does
// not do by itself: see containerd.toml. To wait for that is an option of the
// end of a lease.
func (c Containerd) collect(ctx context.Context) error {
	out, err := c.ctr(ctx, nil, "leases", "create")
	if err != nil {
		return err
	}
	_, err = c.ctr(ctx, nil, "leases", "delete", "--sync", string(bytes.TrimSpace(out)))
	return err
}

// missing are the images that containerd has not, or not as they are now.
func (c Containerd) missing(ctx context.Context, images []Image) ([]named, error) {
	out, err := c.ctr(ctx, nil, "images", "ls")
	if err != nil {
		return nil, err
	}
	there := parseImages(out)
	var missing []named
	for _, img := range images {
		built, err := img.build()
		if err != nil {
			return nil, err
		}
		digest, err := built.Digest()
		if err != nil {
			return nil, err
		}
		if there[img.Name] != digest.String() {
			missing = append(missing, named{name: img.Name, Image: built})
		}
	}
	return missing, nil
}

// parseImages reads the table of `ctr images ls`: name, type, digest, and more.
func parseImages(out []byte) map[string]string {
	there := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 {
			there[fields[0]] = fields[2]
		}
	}
	return there
}

// RemoveContainers removes every container and sandbox that containerd has on
// record, with what they have written. Their processes must have ended. It
// returns how many there were; containerd's Kubernetes part doesn't notice
// before it is started again.
func (c Containerd) RemoveContainers(ctx context.Context) (int, error) {
	out, err := c.ctr(ctx, nil, "containers", "ls", "--quiet")
	if err != nil {
		return 0, err
	}
	ids := strings.Fields(string(out))
	if len(ids) == 0 {
		return 0, nil
	}
	// Kubernetes' part of containerd removes ended tasks at the same time: what
	// counts is that the containers can be deleted afterwards.
	_, taskErr := c.ctr(ctx, nil, append([]string{"tasks", "delete", "--force"}, ids...)...)
	if _, err := c.ctr(ctx, nil, append([]string{"containers", "delete"}, ids...)...); err != nil {
		return 0, errors.Join(err, taskErr)
	}
	return len(ids), nil
}

// Ready reports whether containerd answers.
func (c Containerd) Ready(ctx context.Context) error {
	_, err := c.ctr(ctx, nil, "version")
	return err
}

func (c Containerd) ctr(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "ctr", append([]string{"--address", c.Socket, "--namespace", "k8s.io"}, args...)...)
	cmd.Stdin = stdin
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("ctr %s: %w: %s", strings.Join(args[:min(2, len(args))], " "), err, bytes.TrimSpace(problems.Bytes()))
	}
	return out.Bytes(), nil
}
