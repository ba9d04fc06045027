package artifacts

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// maxLink is Linux's limit of a link's target.
const maxLink = 4096

// extract writes an archive's files below root: modes, modification times,
// links and, if we are root, owners are kept; set-user-id bits are not. Files
// replace files of the same name. An archive with a name that leads out of root
// is refused before anything is written, and no link is followed out of it:
// archives come from other jobs, perhaps of other projects.
//
// Links are made after all files and directories get their modes last, so that
// neither stands in the way of what comes after it in the archive.
func extract(ctx context.Context, archive *zip.Reader, root *os.Root, log lines) error {
	for _, file := range archive.File {
		if err := checkName(file.Name); err != nil {
			return fmt.Errorf("archive refused: %w", err)
		}
	}
	x := &extractor{root: root, log: log, asRoot: os.Geteuid() == 0}
	defer x.leave()
	for _, pass := range []func(*zip.File) error{x.filePass, x.linkPass} {
		for _, file := range archive.File {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := pass(file); err != nil {
				return fmt.Errorf("extract %q: %w", file.Name, err)
			}
		}
	}
	return x.finishDirs()
}

func checkName(name string) error {
	if name == "" || !filepath.IsLocal(name) || strings.ContainsRune(name, 0) {
		return fmt.Errorf("entry %q leads out of the project directory", name)
	}
	return nil
}

// extractor keeps the directory it works in open: entries of one directory
// follow each other, and each name is then resolved once and not once for
// every directory above it.
type extractor struct {
	root      *os.Root
	log       lines
	asRoot    bool
	warnedGit bool

	parent     *os.Root
	parentName string
	dirs       []*zip.File
}

func (x *extractor) filePass(file *zip.File) error {
	name := path.Clean(file.Name)
	if isGit(name) && !x.warnedGit {
		warnGit(x.log, "extract")
		x.warnedGit = true
	}
	switch mode := file.Mode(); {
	case name == ".", mode&fs.ModeSymlink != 0:
		return nil
	case mode.IsDir():
		x.dirs = append(x.dirs, file)
		return x.root.MkdirAll(name, 0o755)
	case mode.IsRegular():
		return x.writeFile(name, file)
	default:
		x.log.warn("File ignored: %s: %v", name, errNotRegular)
		return nil
	}
}

func (x *extractor) linkPass(file *zip.File) error {
	if file.Mode()&fs.ModeSymlink == 0 {
		return nil
	}
	target, err := linkTarget(file)
	if err != nil {
		return err
	}
	dir, base, err := x.enter(path.Clean(file.Name))
	if err != nil {
		return err
	}
	if err := makeWay(dir, base); err != nil {
		return err
	}
	if err := dir.Symlink(target, base); err != nil {
		return err
	}
	uid, gid, known := ownerIn(file.Extra)
	if known && x.asRoot {
		return tolerate(dir.Lchown(base, uid, gid))
	}
	return nil
}

func linkTarget(file *zip.File) (string, error) {
	content, err := file.Open()
	if err != nil {
		return "", err
	}
	defer content.Close()
	target, err := io.ReadAll(io.LimitReader(content, maxLink+1))
	if err != nil {
		return "", err
	}
	if len(target) == 0 || len(target) > maxLink {
		return "", fmt.Errorf("a link's target has %d bytes or more, expected 1 to %d", len(target), maxLink)
	}
	return string(target), nil
}

func (x *extractor) writeFile(name string, file *zip.File) error {
	content, err := file.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	dir, base, err := x.enter(name)
	if err != nil {
		return err
	}
	if err := makeWay(dir, base); err != nil {
		return err
	}
	out, err := dir.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, content) //nolint:gosec // G110: artifacts may be as large as their job makes them
	if err == nil {
		err = x.setOwnerAndMode(out, file)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return dir.Chtimes(base, file.Modified, file.Modified)
}

// setOwnerAndMode works on the open file: by name it could hit another.
func (x *extractor) setOwnerAndMode(out *os.File, file *zip.File) error {
	uid, gid, known := ownerIn(file.Extra)
	if known && x.asRoot {
		if err := tolerate(out.Chown(uid, gid)); err != nil {
			return err
		}
	}
	return out.Chmod(file.Mode().Perm())
}

// tolerate drops the error of a root that may not change owners: a container
// without CAP_CHOWN, a volume that has no owners.
func tolerate(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// makeWay removes the file that an entry replaces. It must not be written to:
// it may be a link, or shared with other names.
func makeWay(dir *os.Root, base string) error {
	err := dir.Remove(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// enter opens the directory that name lies in, made if need be, and returns it
// with name's last part.
func (x *extractor) enter(name string) (*os.Root, string, error) {
	dir, base := path.Dir(name), path.Base(name)
	if x.parent != nil && x.parentName == dir {
		return x.parent, base, nil
	}
	x.leave()
	if err := x.root.MkdirAll(dir, 0o755); err != nil {
		return nil, "", err
	}
	parent, err := x.root.OpenRoot(dir)
	if err != nil {
		return nil, "", err
	}
	x.parent, x.parentName = parent, dir
	return parent, base, nil
}

func (x *extractor) leave() {
	if x.parent != nil {
		_ = x.parent.Close()
		x.parent = nil
	}
}

// finishDirs sets modes and times of directories, the deepest first, now that
// nothing is written to them any more.
func (x *extractor) finishDirs() error {
	slices.SortFunc(x.dirs, func(a, b *zip.File) int { return strings.Compare(b.Name, a.Name) })
	for _, file := range x.dirs {
		if err := x.finishDir(path.Clean(file.Name), file); err != nil {
			return fmt.Errorf("extract %q: %w", file.Name, err)
		}
	}
	return nil
}

// finishDir is lenient: the directory may have been there before and be
// somebody else's.
func (x *extractor) finishDir(name string, file *zip.File) error {
	dir, err := x.root.Open(name)
	if err != nil {
		return err
	}
	err = tolerate(x.setOwnerAndMode(dir, file))
	if err = errors.Join(err, dir.Close()); err != nil {
		return err
	}
	return tolerate(x.root.Chtimes(name, file.Modified, file.Modified))
}
