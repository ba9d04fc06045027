package artifacts

import (
	"archive/zip"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// zipPacker returns a packer for zip archives. Modes, links, modification times
// and owners are kept; pipes, sockets and devices are left out with a warning.
func zipPacker(level int) packer {
	return func(ctx context.Context, w io.Writer, root *os.Root, names []string, log lines) error {
		archive := zip.NewWriter(w)
		deflate, err := flate.NewWriter(io.Discard, level)
		if err != nil {
			return fmt.Errorf("compression level %d: %w", level, err)
		}
		// Entries are written one after another, so that one compressor, which
		// holds more than half a megabyte, does for all.
		archive.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) {
			deflate.Reset(out)
			return deflate, nil
		})
		warned := false
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			if isGit(name) && !warned {
				warnGit(log, "archive")
				warned = true
			}
			if err := addZipEntry(archive, root, name, log); err != nil {
				return err
			}
		}
		return archive.Close()
	}
}

func addZipEntry(archive *zip.Writer, root *os.Root, name string, log lines) error {
	info, err := root.Lstat(name)
	if vanished(err) {
		log.warn("File ignored: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return addZipFile(archive, root, name, log)
	case mode.IsDir():
		return addZipContent(archive, name+"/", info, "", zip.Store)
	case mode&fs.ModeSymlink != 0:
		target, err := root.Readlink(name)
		if err != nil {
			return err
		}
		return addZipContent(archive, name, info, target, zip.Store)
	default:
		log.warn("File ignored: %s: %v", name, errNotRegular)
		return nil
	}
}

func addZipFile(archive *zip.Writer, root *os.Root, name string, log lines) error {
	file, info, err := openRegular(root, name)
	if vanished(err) {
		log.warn("File ignored: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	entry, err := createZipEntry(archive, name, info, zip.Deflate)
	if err != nil {
		return err
	}
	_, err = io.Copy(entry, file)
	return err
}

func addZipContent(archive *zip.Writer, name string, info fs.FileInfo, content string, method uint16) error {
	entry, err := createZipEntry(archive, name, info, method)
	if err != nil {
		return err
	}
	_, err = io.WriteString(entry, content)
	return err
}

func createZipEntry(archive *zip.Writer, name string, info fs.FileInfo, method uint16) (io.Writer, error) {
	header, err := zip.FileInfoHeader(info)
	if err != nil {
		return nil, err
	}
	header.Name = name
	header.Method = method
	header.Extra = ownerField(info) // the modification time is added by the package itself
	return archive.CreateHeader(header)
}
