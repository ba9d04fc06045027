package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// floor creates a tree's directories and files from memory, relative to directory
// handles and with one write each, by as many workers as there are processors:
// what no restore can do without.
func floor(_ context.Context, args []string) error {
	source, target := args[0], args[1]
	type file struct {
		name string
		mode uint32
		data []byte
	}
	type folder struct {
		path  string
		files []file
	}
	var folders []*folder
	byPath := map[string]*folder{}
	err := filepath.WalkDir(source, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			byPath[rel] = &folder{path: rel}
			folders = append(folders, byPath[rel])
			return nil
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		d := byPath[filepath.Dir(rel)]
		d.files = append(d.files, file{e.Name(), uint32(info.Mode().Perm()), data})
		return err
	})
	if err != nil {
		return err
	}
	runtime.GC()
	var before unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		return err
	}
	began := time.Now()
	root, err := unix.Open(target, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for _, d := range folders {
		if err := unix.Mkdirat(root, d.path, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(folders) {
					return
				}
				d := folders[i]
				at, err := unix.Openat(root, d.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				for j := 0; err == nil && j < len(d.files); j++ {
					var fd int
					fd, err = unix.Openat(at, d.files[j].name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, d.files[j].mode)
					if err == nil {
						_, err = unix.Write(fd, d.files[j].data)
						err = errors.Join(err, unix.Close(fd))
					}
				}
				if err != nil {
					failed.Store(&err)
					return
				}
				_ = unix.Close(at)
			}
		})
	}
	workers.Wait()
	wall := time.Since(began)
	var after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	return own{Wall: wall.Seconds(), CPU: cpu.Seconds()}.print()
}
