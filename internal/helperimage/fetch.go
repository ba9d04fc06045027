package helperimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"podlane/internal/image"
)

// Source is where packages come from.
type Source struct {
	// Mirror is the URL above debian/ and debian-security/.
	Mirror string
	// Cache is a folder that keeps what has been fetched.
	Cache string
}

// DefaultMirror is Debian's own.
const DefaultMirror = "http://deb.debian.org"

// maxPackage bounds an answer: the largest package has 9 MB.
const maxPackage = 64 << 20

// Tree returns the files of the image for an architecture, all but
// podlane-helper.
func (s Source) Tree(ctx context.Context, lock Lock, arch string) ([]image.Entry, error) {
	var packages [][]image.Entry
	for _, p := range lock.Of(arch) {
		deb, err := s.fetch(ctx, lock, p)
		if err != nil {
			return nil, err
		}
		entries, err := unpack(deb, p.Name)
		if err != nil {
			return nil, err
		}
		packages = append(packages, entries)
	}
	if packages == nil {
		return nil, fmt.Errorf("the lock file has no packages for %s", arch)
	}
	tree := compose(packages)
	return tree, checkLibraries(tree)
}

// Key is different for different trees.
func (l Lock) Key(arch string) string {
	h := sha256.New()
	fmt.Fprintln(h, recipe, l.Date, l.Of(arch))
	return hex.EncodeToString(h.Sum(nil))
}

// fetch returns a package from the cache, the mirror or Debian's archive of all
// that ever was: a mirror drops a version when the next one comes.
func (s Source) fetch(ctx context.Context, lock Lock, p Package) ([]byte, error) {
	file := filepath.Join(s.Cache, p.SHA256+".deb")
	if content, err := os.ReadFile(file); err == nil && p.check(content) == nil {
		return content, nil
	}
	snapshot := "https://snapshot.debian.org/archive/" + p.Archive + "/" + lock.Date.Format("20060102T150405Z") + "/" + p.Path
	var failed error
	for _, url := range []string{strings.TrimSuffix(s.Mirror, "/") + "/" + p.Archive + "/" + p.Path, snapshot} {
		content, err := get(ctx, url, maxPackage)
		if err == nil {
			err = p.check(content)
		}
		if err == nil {
			return content, keep(file, content)
		}
		failed = errors.Join(failed, fmt.Errorf("package %s %s: %w", p.Name, p.Version, err))
	}
	return nil, failed
}

func (p Package) check(content []byte) error {
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != p.SHA256 {
		return fmt.Errorf("found %d bytes with SHA-256 %x, expected %d with %s", len(content), sum, p.Size, p.SHA256)
	}
	return nil
}

// keep writes a file in one step: several may do so at once.
func keep(file string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), path.Base(file)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// requestLimit bounds one download.
const requestLimit = 2 * time.Minute

func get(ctx context.Context, url string, most int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", url, answer.Status)
	}
	content, err := io.ReadAll(io.LimitReader(answer.Body, most))
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", url, err)
	}
	return content, nil
}
