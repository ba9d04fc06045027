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

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// tree is a tree in memory.
type tree struct {
	folders []*folder
	frames  [][]byte // its contents once more, compressed as a cache has them
}

type folder struct {
	path  string
	files []file
}

type file struct {
	name string
	mode uint32
	data []byte
}

// floor creates a tree's directories and files from memory, relative to directory
// handles and with one write each, by as many workers as there are processors:
// what no restore can do without.
func floor(_ context.Context, args []string) error { return createFrom(args[0], args[1], false) }

// floorDecode decodes all contents, besides: what no restore of a compressed cache
// can do without. It throws away what it decodes, checks no digest, knows no
// times, and nothing comes over a network.
func floorDecode(_ context.Context, args []string) error { return createFrom(args[0], args[1], true) }

func createFrom(source, target string, decode bool) error {
	t, err := load(source)
	if err != nil {
		return err
	}
	if decode {
		if err := t.compress(); err != nil {
			return err
		}
	}
	runtime.GC()
	before, began := cpuTime(), time.Now()
	if err := errors.Join(t.decode(), t.create(target)); err != nil {
		return err
	}
	return own{Wall: time.Since(began).Seconds(), CPU: (cpuTime() - before).Seconds()}.print()
}

func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// load reads a tree.
func load(source string) (*tree, error) {
	t := &tree{}
	byPath := map[string]*folder{}
	return t, filepath.WalkDir(source, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			byPath[rel] = &folder{path: rel}
			t.folders = append(t.folders, byPath[rel])
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
}

// frameLength is what a cache's frames unpack to.
const frameLength = 4 << 20

func (t *tree) compress() error {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithWindowSize(frameLength))
	if err != nil {
		return err
	}
	defer enc.Close()
	var raw []byte
	for _, d := range t.folders {
		for _, f := range d.files {
			raw = append(raw, f.data...)
			for len(raw) >= frameLength {
				t.frames = append(t.frames, enc.EncodeAll(raw[:frameLength], nil))
				raw = append(raw[:0], raw[frameLength:]...)
			}
		}
	}
	t.frames = append(t.frames, enc.EncodeAll(raw, nil))
	return nil
}

func (t *tree) decode() error {
	return each(len(t.frames), func() (func(int) error, error) {
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
		raw := make([]byte, 0, frameLength)
		return func(i int) error {
			_, err := dec.DecodeAll(t.frames[i], raw)
			return err
		}, err
	})
}

func (t *tree) create(target string) error {
	root, err := unix.Open(target, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for _, d := range t.folders {
		if err := unix.Mkdirat(root, d.path, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return each(len(t.folders), func() (func(int) error, error) {
		return func(i int) error { return t.folders[i].create(root) }, nil
	})
}

func (d *folder) create(root int) error {
	at, err := unix.Openat(root, d.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for _, f := range d.files {
		fd, err := unix.Openat(at, f.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, f.mode)
		if err != nil {
			return err
		}
		_, err = unix.Write(fd, f.data)
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return err
		}
	}
	return unix.Close(at)
}

// each does n things by as many workers as there are processors.
func each(n int, worker func() (func(int) error, error)) error {
	var next atomic.Int64
	errs := make([]error, runtime.GOMAXPROCS(0))
	var workers sync.WaitGroup
	for i := range errs {
		workers.Go(func() {
			do, err := worker()
			for err == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				err = do(i)
			}
			errs[i] = err
		})
	}
	workers.Wait()
	return errors.Join(errs...)
}
