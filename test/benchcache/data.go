package main

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// dataset is a tree to cache. Its only entry is named, as a cache's path is.
type dataset struct {
	name  string
	dir   string // what holds the tree
	path  string // of the tree in dir
	files int
	bytes int64
}

// dataset makes a data set unless an earlier run has.
func (b *bench) dataset(ctx context.Context, name string) (*dataset, error) {
	makers := map[string]func(context.Context, string) error{"node": b.makeNode, "gomod": b.makeGomod, "big": b.makeBig}
	paths := map[string]string{"node": "node_modules", "gomod": "mod", "big": "big"}
	if makers[name] == nil {
		return nil, fmt.Errorf("unknown, expected node, gomod or big")
	}
	d := &dataset{name: name, dir: filepath.Join(b.dir, "data", name), path: paths[name]}
	if _, err := os.Stat(d.dir); err != nil {
		fmt.Fprintf(b.out, "making the data set %s\n", name)
		tmp := d.dir + ".tmp"
		if err := os.RemoveAll(tmp); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(tmp, 0o755); err != nil {
			return nil, err
		}
		if err := makers[name](ctx, tmp); err != nil {
			return nil, err
		}
		if err := os.Rename(tmp, d.dir); err != nil {
			return nil, err
		}
	}
	err := filepath.WalkDir(d.dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = e.Info(); err == nil {
				d.files++
				d.bytes += info.Size()
			}
		}
		return err
	})
	return d, err
}

// makeNode installs what package-lock.json pins. Scripts stay off: they download
// programs for this machine.
func (b *bench) makeNode(ctx context.Context, dir string) error {
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile(filepath.Join(b.root, "test", "benchcache", "node", name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	if err := tool(ctx, dir, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--legacy-peer-deps"); err != nil {
		return err
	}
	for _, name := range []string{"package.json", "package-lock.json"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// modules are a Go module cache of more than 300 MB, 0555 folders and all.
var modules = []string{"k8s.io/kubernetes@v1.34.4", "github.com/aws/aws-sdk-go@v1.55.8"}

func (b *bench) makeGomod(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"mod", "download"}, modules...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOMODCACHE="+filepath.Join(dir, "mod")) //nolint:forbidigo // the program's own
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go mod download: %w\n%s", err, out)
	}
	return nil
}

// makeBig writes 20 files of 50 MB that compress to about half.
func (b *bench) makeBig(_ context.Context, dir string) error {
	const files, size = 20, 50_000_000
	if err := os.MkdirAll(filepath.Join(dir, "big"), 0o755); err != nil {
		return err
	}
	for n := range files {
		rnd := rand.New(rand.NewPCG(uint64(n), 1))
		data := make([]byte, size)
		for i := 0; i < size; i += 64 { // half noise, half words
			for j := i; j < min(i+32, size); j++ {
				data[j] = byte(rnd.Uint32())
			}
			copy(data[min(i+32, size):], "the quick brown fox jumps over 32")
		}
		if err := os.WriteFile(filepath.Join(dir, "big", fmt.Sprintf("file%02d.bin", n)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// tool runs a program and shows what it said if it failed.
func tool(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
