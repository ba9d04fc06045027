// Command zip saves and restores a tree as GitLab Runner's helper does with
// FF_USE_FASTZIP, its default: the archive goes through a temporary file, and
// one stream carries it.
package main

import (
	"archive/zip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/saracen/fastzip"
)

// level is what the helper's "default" means for fastzip.
const level = 5

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: zip save|restore <folder> <presigned URL>")
		os.Exit(2)
	}
	do := save
	if os.Args[1] == "restore" {
		do = restore
	}
	if err := do(context.Background(), os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "zip:", err)
		os.Exit(1)
	}
}

func save(ctx context.Context, dir, url string) error {
	file, err := temporary()
	if err != nil {
		return err
	}
	defer file.Close()
	files := map[string]os.FileInfo{}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		files[path] = info
		return err
	})
	if err != nil {
		return err
	}
	stage, err := os.MkdirTemp("", "fastzip")
	if err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	a, err := fastzip.NewArchiver(file, dir, fastzip.WithStageDirectory(stage))
	if err != nil {
		return err
	}
	a.RegisterCompressor(zip.Deflate, fastzip.FlateCompressor(level))
	if err := a.Archive(ctx, files); err != nil {
		return err
	}
	if err := a.Close(); err != nil {
		return err
	}
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, io.NopCloser(file))
	if err != nil {
		return err
	}
	req.ContentLength = size
	_, err = ask(req, io.Discard)
	return err
}

func restore(ctx context.Context, dir, url string) error {
	file, err := temporary()
	if err != nil {
		return err
	}
	defer file.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	size, err := ask(req, file)
	if err != nil {
		return err
	}
	x, err := fastzip.NewExtractorFromReader(file, size, dir)
	if err != nil {
		return err
	}
	defer x.Close()
	return x.Extract(ctx)
}

// temporary opens a file that is gone when it is closed.
func temporary() (*os.File, error) {
	file, err := os.CreateTemp("", "cache")
	if err != nil {
		return nil, err
	}
	return file, os.Remove(file.Name())
}

func ask(req *http.Request, out io.Writer) (int64, error) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s", resp.Status)
	}
	return io.Copy(out, resp.Body)
}
