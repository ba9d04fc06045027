package artifacts

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"unicode"
)

// gzipPacker returns a packer for GitLab's gzip format, which reports have: one
// gzip member for each file, one after another, with the file's name in the
// member's header. Directories are left out.
func gzipPacker(level int) packer {
	return func(ctx context.Context, w io.Writer, root *os.Root, names []string, log lines) error {
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := addGzipMember(w, level, root, name, log); err != nil {
				return err
			}
		}
		return nil
	}
}

func addGzipMember(w io.Writer, level int, root *os.Root, name string, log lines) error {
	file, info, err := openRegular(root, name)
	if vanished(err) {
		log.warn("File ignored: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	member, err := gzip.NewWriterLevel(w, level)
	if err != nil {
		return fmt.Errorf("compression level %d: %w", level, err)
	}
	member.Name = headerText(info.Name())
	member.Comment = headerText(name)
	member.ModTime = info.ModTime()
	if _, err := io.Copy(member, file); err != nil {
		return err
	}
	return member.Close()
}

// headerText encodes a name for a gzip header, which holds Latin-1 only, in the
// way GitLab reads it (gitlab-runner helpers/archives/gzip_create.go).
func headerText(s string) string {
	special := func(r rune) bool { return r > unicode.MaxASCII || r == '%' }
	if !strings.ContainsFunc(s, special) {
		return s
	}
	return "e:" + url.PathEscape(s)
}
