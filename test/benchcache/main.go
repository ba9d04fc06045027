// Command benchcache measures how long caches take to be restored and saved,
// side by side with what a runner does today and with what the machine allows.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && subjects[os.Args[1]] != nil {
		exit(subjects[os.Args[1]](ctx, os.Args[2:]))
	}
	o := options{}
	flag.BoolVar(&o.quick, "quick", false, "one run of each, node on tmpfs alone: less than a minute once the data is there")
	flag.IntVar(&o.runs, "n", 5, "runs of each measurement")
	flag.StringVar(&o.data, "data", "node,gomod,big", "data sets to measure")
	flag.StringVar(&o.targets, "targets", "tmpfs,ext4", "file systems to measure")
	flag.StringVar(&o.tmpfs, "tmpfs", "/dev/shm", "a folder on a tmpfs with room for 6 GB")
	flag.StringVar(&o.subjects, "subjects", "podlane,zip,tar,floor,floor+decode", "subjects to measure; podlane has to be among them")
	flag.BoolVar(&o.far, "far", true, "measure over a slower network, too")
	flag.BoolVar(&o.procs, "procs", true, "measure with other numbers of processors, too")
	flag.StringVar(&o.minio, "minio", "minio", "the MinIO server to start")
	flag.StringVar(&o.helper, "helper", "bin/podlane-helper", "the helper to measure")
	flag.StringVar(&o.record, "record", "", "a page to write the tables to: docs/cache-speed.md")
	flag.Parse()
	if o.quick {
		o.runs, o.data, o.targets, o.far, o.procs = 1, "node", "tmpfs", false, false
	}
	exit(run(ctx, o, os.Stdout))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchcache:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// options are the command line.
type options struct {
	quick, far, procs    bool
	runs                 int
	data, targets, tmpfs string
	subjects             string
	minio, helper        string
	record               string
}

// bench is one run of this program.
type bench struct {
	options
	root   string // the checkout
	dir    string // .local/bench
	self   string
	zip    string
	lock   *os.File // held as long as this runs
	bucket bucket
	server *server
	out    io.Writer
	rows   []*row
}

func run(ctx context.Context, o options, out io.Writer) error {
	b := &bench{options: o, out: out}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	server, err := startS3(ctx, b)
	if err != nil {
		return err
	}
	err = b.measureAll(ctx)
	if e := server.close(); err == nil {
		err = e
	}
	return errors.Join(err, b.show(), b.removeTrees())
}

// prepare builds what is measured.
func (b *bench) prepare(ctx context.Context) (err error) {
	if b.root, err = os.Getwd(); err != nil {
		return err
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.helper, err = filepath.Abs(b.helper); err != nil {
		return err
	}
	b.dir = filepath.Join(b.root, ".local", "bench")
	b.zip = filepath.Join(b.dir, "bin", "zip")
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	if b.lock, err = os.Create(filepath.Join(b.dir, "lock")); err != nil {
		return err
	}
	if err := unix.Flock(int(b.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another run measures in this checkout: %w", err)
	}
	if err := b.removeTrees(); err != nil { // of a run that was killed
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.zip), 0o755); err != nil {
		return err
	}
	return tool(ctx, filepath.Join(b.root, "test", "benchcache", "zip"), "go", "build", "-o", b.zip, ".")
}

func (b *bench) measureAll(ctx context.Context) error {
	for _, name := range strings.Split(b.data, ",") {
		d, err := b.dataset(ctx, name)
		if err != nil {
			return fmt.Errorf("data set %s: %w", name, err)
		}
		for _, target := range strings.Split(b.targets, ",") {
			if err := b.measureOn(ctx, d, target); err != nil {
				return fmt.Errorf("%s on %s: %w", name, target, err)
			}
		}
	}
	return nil
}

// trees is where runs on a file system create what they create.
func (b *bench) trees(target string) string {
	if target == "tmpfs" {
		return filepath.Join(b.tmpfs, fmt.Sprintf("podlane-bench-%08x", crc32.ChecksumIEEE([]byte(b.root)))) // of this checkout
	}
	return filepath.Join(b.dir, "trees")
}

// removeTrees comes last, and for all of ext4 at once: that file system is slow
// for minutes after a large delete.
func (b *bench) removeTrees() error {
	return errors.Join(os.RemoveAll(b.trees("tmpfs")), os.RemoveAll(b.trees("ext4")))
}

// measureOn measures one data set on one file system.
func (b *bench) measureOn(ctx context.Context, d *dataset, target string) error {
	place := filepath.Join(b.trees(target), d.name)
	if err := os.MkdirAll(place, 0o755); err != nil {
		return err
	}
	if target == "tmpfs" {
		defer os.RemoveAll(place)
	}
	source := d.dir
	if target == "tmpfs" {
		source = filepath.Join(place, "source")
		if err := tool(ctx, "", "cp", "-a", d.dir, source); err != nil {
			return err
		}
	}
	m := &measurement{bench: b, data: d, target: target, place: place, source: source}
	if err := m.saves(ctx); err != nil {
		return err
	}
	subjects := []string{"podlane", "zip", "tar", "floor"}
	if target == "tmpfs" && d.name == "node" {
		subjects = append(subjects, "floor+decode")
	}
	if err := m.restores(ctx, "", 0, subjects); err != nil {
		return err
	}
	if target != "tmpfs" || d.name != "node" {
		return nil
	}
	if b.far {
		for _, p := range b.server.proxies {
			if err := m.restores(ctx, p.name, 0, []string{"podlane", "zip", "tar"}); err != nil {
				return err
			}
		}
	}
	if b.procs {
		for _, n := range []int{1, 2, 4} {
			if err := m.restores(ctx, "", n, []string{"podlane", "zip"}); err != nil {
				return err
			}
		}
	}
	return nil
}
