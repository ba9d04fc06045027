package archive

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Restore creates in root what the archive holds. Nothing is decoded before its
// digest has been checked, and no link is there before all files are, so none
// can lead a file out of root. What is in the way of a file or link is replaced,
// at the very end, so an error leaves root as it was; other errors than those of
// this package come from the file system or from fetch.
func Restore(ctx context.Context, root string, x *Index, fetch Fetch, o RestoreOptions) (Summary, error) {
	o = o.orDefaults()
	began := time.Now()
	top, err := openRoot(root)
	if err != nil {
		return Summary{}, err
	}
	defer top.close()
	r := &restorer{
		tree: &tree{
			index: x, root: top, umask: umask(), owner: defaultOwner(),
			made: make([]atomic.Uint32, len(x.dirs)),
		},
		options: o, fetch: fetch, began: began, files: make([]splitFile, len(x.splits)),
	}
	begun, err := r.run(ctx)
	if begun && err != nil {
		if e := Remove(root, r.tree.survey.created); e != nil {
			err = fmt.Errorf("%w (and not all that was restored could be removed: %w)", err, e)
		}
	}
	if err != nil {
		return Summary{}, err
	}
	summary := x.summary
	summary.FirstFile = time.Duration(r.firstFile.Load())
	return summary, nil
}

func (o RestoreOptions) orDefaults() RestoreOptions {
	if o.Connections == 0 {
		o.Connections = 8
	}
	o.fit()
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	return o
}

// restorer is one Restore.
type restorer struct {
	tree      *tree
	options   RestoreOptions
	fetch     Fetch
	began     time.Time
	firstFile atomic.Int64
	files     []splitFile // for each of Index.splits
}

// run reports whether it has begun to create anything.
func (r *restorer) run(ctx context.Context) (begun bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The first frames are on their way while we look at what is there.
	frames := r.fetchAll(ctx, cancel)
	if err := r.begin(); err != nil {
		cancel(err)
		frames.drain()
		return false, err
	}
	var workers sync.WaitGroup
	for range r.options.Workers {
		workers.Go(func() {
			if err := r.work(frames); err != nil {
				cancel(err)
			}
			frames.drain() // after an error
		})
	}
	workers.Wait()
	defer r.closeFiles()
	if ctx.Err() != nil {
		return true, context.Cause(ctx)
	}
	return true, r.tree.finish(ctx)
}

// begin finds out what will be created, and says so.
func (r *restorer) begin() (err error) {
	r.tree.survey, err = r.tree.index.survey(r.tree.root, r.options.Allow)
	if err == nil && r.options.Begin != nil {
		err = r.options.Begin(r.tree.survey.created)
	}
	return err
}

// work decodes frames and creates their files.
func (r *restorer) work(frames *fetched) error {
	dec, err := newDecoder()
	if err != nil {
		return err
	}
	defer dec.Close()
	p := newPlacer(r.tree)
	defer p.close()
	raw := make([]byte, 0, r.tree.index.longest())
	for f := range frames.ready {
		raw, err = r.decode(dec, f, raw[:0])
		frames.release(f)
		if err != nil {
			return err
		}
		if err := r.place(p, f.number, raw); err != nil {
			return err
		}
	}
	return nil
}

// longest is the length of the longest frame.
func (x *Index) longest() int {
	longest := 0
	for i := range x.frames {
		longest = max(longest, x.frames[i].length)
	}
	return longest
}

// place creates the files that begin in a frame, and fills the one that began
// before it.
func (r *restorer) place(p *placer, number int, raw []byte) error {
	x := r.tree.index
	f := &x.frames[number]
	if i := x.splitInto(f.raw); i >= 0 {
		if err := r.placePiece(p, i, f, raw); err != nil {
			return err
		}
	}
	w := x.walkFrom(x.starts[number])
	for w.next() {
		if w.r.kind != kindFile {
			continue
		}
		if w.r.begin() >= f.end() {
			break
		}
		var err error
		if w.r.data+w.r.size <= f.end() {
			data := raw[w.r.data-f.raw:][:w.r.size]
			err = p.file(w.dir, w.c.ordinal, &w.r, data)
			r.options.Progress.Bytes.Add(w.r.size)
		} else {
			err = r.placePiece(p, x.splitOf(w.c.ordinal), f, raw)
		}
		if err != nil {
			return err
		}
		if r.firstFile.Load() == 0 {
			r.firstFile.CompareAndSwap(0, int64(time.Since(r.began)))
		}
		r.options.Progress.Files.Add(1)
	}
	return nil
}

// umask says which mode bits new files do not get. If it cannot be found out,
// all count: each file's mode is then set.
func umask() uint32 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return permissions
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "Umask:"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(value), 8, 32); err == nil {
				return uint32(n)
			}
		}
	}
	return permissions
}

// defaultOwner is who new files belong to, if we may give them to others.
func defaultOwner() *unix.Stat_t {
	if os.Geteuid() != 0 {
		return nil
	}
	return &unix.Stat_t{Uid: 0, Gid: uint32(os.Getegid())}
}
