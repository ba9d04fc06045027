package image

import (
	"archive/tar"
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Entry is a file, directory or link in a layer.
type Entry struct {
	Name string // path in the image, without a leading slash
	Mode fs.FileMode
	UID  int
	GID  int
	// Time of the last change, in seconds since 1970.
	Time int64
	// Link is a symbolic link's target.
	Link string
	// A file's content is Content or, if Source is set, the file of that path.
	Content []byte
	Source  string
}

// Dir is a directory of root's.
func Dir(name string, mode fs.FileMode) Entry { return Entry{Name: name, Mode: fs.ModeDir | mode} }

// Symlink is a link to target.
func Symlink(name, target string) Entry {
	return Entry{Name: name, Mode: fs.ModeSymlink | 0o777, Link: target}
}

// Program is a copy of the program at source on this machine.
func Program(name, source string) Entry { return Entry{Name: name, Mode: 0o755, Source: source} }

// Text is a file with the given content.
func Text(name string, mode fs.FileMode, content string) Entry {
	return Entry{Name: name, Mode: mode, Content: []byte(content)}
}

// Tree returns what is below root as entries under prefix, without their times,
// but for what skip says of its path relative to root. Devices and sockets are
// left out: images get theirs when they run.
func Tree(root, prefix string, skip func(path string) bool) ([]Entry, error) {
	var out []Entry
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if skip != nil && skip(name) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		e, ok, err := entryOf(path)
		if ok {
			e.Name = filepath.Join(prefix, name)
			out = append(out, e)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read file tree %s: %w", root, err)
	}
	return out, nil
}

func entryOf(path string) (e Entry, ok bool, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return Entry{}, false, err
	}
	e = Entry{Mode: info.Mode()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		e.UID, e.GID = int(st.Uid), int(st.Gid)
	}
	switch {
	case info.IsDir():
	case info.Mode().IsRegular():
		e.Source = path
	case info.Mode()&fs.ModeSymlink != 0:
		e.Link, err = os.Readlink(path)
	default:
		return Entry{}, false, nil
	}
	return e, err == nil, err
}

// pack writes entries as a tar that depends on nothing but them: sorted, and
// without the names of this machine's users.
func pack(w io.Writer, entries []Entry) error {
	entries = slices.SortedFunc(slices.Values(entries), func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	t := tar.NewWriter(w)
	for _, e := range entries {
		if err := e.write(t); err != nil {
			return fmt.Errorf("pack %s: %w", e.Name, err)
		}
	}
	return t.Close()
}

func (e Entry) write(t *tar.Writer) error {
	header := &tar.Header{Name: e.Name, Mode: tarMode(e.Mode), Uid: e.UID, Gid: e.GID, ModTime: time.Unix(e.Time, 0), Format: tar.FormatPAX}
	switch {
	case e.Mode.IsDir():
		header.Typeflag = tar.TypeDir
		header.Name = strings.TrimSuffix(e.Name, "/") + "/"
		return t.WriteHeader(header)
	case e.Mode&fs.ModeSymlink != 0:
		header.Typeflag = tar.TypeSymlink
		header.Linkname = e.Link
		return t.WriteHeader(header)
	}
	header.Typeflag = tar.TypeReg
	if e.Source == "" {
		header.Size = int64(len(e.Content))
		if err := t.WriteHeader(header); err != nil {
			return err
		}
		_, err := t.Write(e.Content)
		return err
	}
	f, err := os.Open(e.Source)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header.Size = info.Size()
	if err := t.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}

// tarMode has the permissions and the three special bits where tar keeps them.
func tarMode(m fs.FileMode) int64 {
	mode := int64(m.Perm())
	for bit, value := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			mode |= value
		}
	}
	return mode
}
