package artifacts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// packer writes files of a project directory to w in one of GitLab's artifact
// formats.
type packer func(ctx context.Context, w io.Writer, root *os.Root, names []string, log lines) error

// newPacker returns the packer for a format and the ending of its archives.
func newPacker(format string, level int) (packer, string, error) {
	switch format {
	case "", "zip":
		return zipPacker(level), ".zip", nil
	case "gzip":
		return gzipPacker(level), ".gz", nil
	case "raw":
		return packRaw, "", nil
	}
	return nil, "", fmt.Errorf("artifact format %q is not known: expected zip, gzip or raw", format)
}

// archiveName is what GitLab shows as the archive's file name.
func archiveName(name, ending string) string {
	name = path.Base(name)
	if name == "." || name == "/" {
		name = "default" // as gitlab-runner artifacts_uploader.go artifactFilename
	}
	return name + ending
}

// packRaw copies the one file that it is given.
func packRaw(_ context.Context, w io.Writer, root *os.Root, names []string, _ lines) error {
	if len(names) != 1 {
		return fmt.Errorf("only one file can be sent as raw, found %d", len(names))
	}
	file, _, err := openRegular(root, names[0])
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(w, file)
	return err
}

var errNotRegular = errors.New("not a regular file")

// openRegular opens a file for reading and returns what it was when opened.
func openRegular(root *os.Root, name string) (io.ReadCloser, fs.FileInfo, error) {
	// Without O_NONBLOCK a pipe that has taken the file's name would block.
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	// The limit ends the copy of a file that something still appends to.
	return &limitedFile{Reader: io.LimitReader(file, info.Size()), Closer: file}, info, nil
}

type limitedFile struct {
	io.Reader
	io.Closer
}

// vanished reports whether a file went away between being found and being
// read: a job's leftover processes do that, and the rest is still worth sending.
func vanished(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// isGit reports whether a name lies in the project's .git.
func isGit(name string) bool { return name == ".git" || strings.HasPrefix(name, ".git/") }

func warnGit(log lines, operation string) {
	log.warn("Part of .git directory is on the list of files to %s. This may introduce unexpected problems", operation)
}
