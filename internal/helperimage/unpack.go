package helperimage

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ulikunitz/xz"

	"podlane/internal/image"
)

// statusDir is where images without dpkg describe their packages for scanners.
const statusDir = "var/lib/dpkg/status.d/"

// unpack returns the files of a Debian package, and its description as one more
// (https://manpages.debian.org/deb.5).
func unpack(deb []byte, name string) ([]image.Entry, error) {
	var out []image.Entry
	for _, part := range []struct {
		name string
		read func(*tar.Reader) ([]image.Entry, error)
	}{
		{"control.tar", func(t *tar.Reader) ([]image.Entry, error) { return describe(t, name) }},
		{"data.tar", files},
	} {
		archive, err := member(deb, part.name)
		if err != nil {
			return nil, fmt.Errorf("package %s: %w", name, err)
		}
		entries, err := part.read(tar.NewReader(archive))
		if err != nil {
			return nil, fmt.Errorf("package %s: %s: %w", name, part.name, err)
		}
		out = append(out, entries...)
	}
	return out, nil
}

const arHeader = 60

// member returns a member of the outer archive, decompressed.
func member(deb []byte, name string) (io.Reader, error) {
	rest, ok := bytes.CutPrefix(deb, []byte("!<arch>\n"))
	if !ok {
		return nil, errors.New("this is no ar archive")
	}
	for len(rest) >= arHeader {
		header := string(rest[:arHeader])
		size, err := strconv.Atoi(strings.TrimSpace(header[48:58]))
		if err != nil || size < 0 || size > len(rest)-arHeader {
			return nil, errors.New("the ar archive is damaged")
		}
		content := rest[arHeader : arHeader+size]
		switch strings.TrimRight(header[:16], " /") {
		case name:
			return bytes.NewReader(content), nil
		case name + ".xz":
			return xz.NewReader(bytes.NewReader(content))
		}
		rest = rest[min(len(rest), arHeader+size+size%2):]
	}
	return nil, fmt.Errorf("it has no %s or %s.xz", name, name)
}

func describe(t *tar.Reader, name string) ([]image.Entry, error) {
	for {
		header, err := t.Next()
		if err != nil {
			return nil, err
		}
		if path.Clean(header.Name) == "control" {
			content, err := io.ReadAll(t)
			return []image.Entry{{Name: statusDir + name, Mode: 0o644, Content: content}}, err
		}
	}
}

// files reads a package's files. Times and all owners but root are left out:
// setuid programs and other users have no place in the image.
func files(t *tar.Reader) ([]image.Entry, error) {
	var out []image.Entry
	for {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		name := merged(header.Name)
		if name == "." {
			continue
		}
		e := image.Entry{Name: name, Mode: fs.FileMode(header.Mode).Perm()}
		switch header.Typeflag {
		case tar.TypeDir:
			e.Mode |= fs.ModeDir
		case tar.TypeSymlink:
			e = image.Symlink(name, header.Linkname)
		case tar.TypeLink:
			to, err := filepath.Rel(path.Dir(name), merged(header.Linkname))
			if err != nil {
				return nil, err
			}
			e = image.Symlink(name, to)
		case tar.TypeReg:
			if e.Content, err = io.ReadAll(t); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("%s is neither a file nor a folder nor a link", name)
		}
		out = append(out, e)
	}
}

// merged is a path with /bin, /lib and so on in /usr, where Debian has them
// although some packages still say otherwise.
func merged(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	switch top, _, _ := strings.Cut(name, "/"); top {
	case "":
		return "."
	case "bin", "sbin", "lib", "lib64":
		return "usr/" + name
	}
	return name
}
