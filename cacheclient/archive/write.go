package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// ahead is how many segments each worker may be ahead of the one that the next
// part waits for.
const ahead = 1

// Write packs the entries of root at paths, which are relative, need no order
// and do not stand for what is below them. Links are packed as links. A file that
// was listed and is gone is left out; one that shrinks while it is read is an
// error. ErrEmpty means that there was nothing at any of the paths.
func Write(ctx context.Context, root string, paths []string, sink Sink, o WriteOptions) (Summary, error) {
	o = o.orDefaults()
	paths, err := clean(paths)
	if err != nil {
		return Summary{}, err
	}
	top, err := openRoot(root)
	if err != nil {
		return Summary{}, err
	}
	defer top.close()
	w := &writer{
		root: top, options: o, segments: make(chan *segment), packed: make(chan packedSegment),
		slots: make(chan []byte, o.Workers*(1+ahead)),
	}
	for range cap(w.slots) {
		w.slots <- nil
	}
	return w.run(ctx, paths, sink)
}

func (o WriteOptions) orDefaults() WriteOptions {
	if o.PartSize == 0 {
		o.PartSize = 8 << 20
	}
	if o.Uploads == 0 {
		o.Uploads = 3
	}
	o.fit()
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	o.Limits = o.Limits.orDefaults()
	return o
}

// writer is one Write: a planner, workers that read and compress segments, and
// one goroutine that puts them in order and cuts them into parts.
type writer struct {
	root     *rootDir
	options  WriteOptions
	segments chan *segment
	packed   chan packedSegment
	// slots are buffers for compressed segments. The planner takes one for each
	// segment, so what is compressed and cannot be sent yet is bounded.
	slots  chan []byte
	frames []frame
}

type packedSegment struct {
	number int
	frame  frame
	data   []byte
}

func (w *writer) run(ctx context.Context, paths []string, sink Sink) (Summary, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	fail := func(err error) {
		if err != nil {
			cancel(err)
		}
	}
	p := &planner{limits: w.options.Limits, walker: newWalker(w.root)}
	p.emit = func(s *segment) (err error) {
		// In this order: whoever took a slot when it is done could leave none
		// for the segment that all others wait for.
		if s.slot, err = receive(ctx, w.slots); err != nil {
			return err
		}
		return send(ctx, w.segments, s)
	}
	defer p.walker.close()

	var workers, others sync.WaitGroup
	others.Go(func() {
		defer close(w.segments)
		fail(p.run(ctx, paths))
	})
	for range w.options.Workers {
		workers.Go(func() { fail(w.work(ctx)) })
	}
	others.Go(func() {
		workers.Wait()
		close(w.packed)
	})
	parts := newParts(w.options, sink, fail)
	fail(w.order(ctx, parts))
	others.Wait()
	if ctx.Err() == nil {
		fail(w.finish(ctx, p, parts))
	}
	parts.wait()
	if ctx.Err() != nil {
		return p.summary, context.Cause(ctx)
	}
	return p.summary, nil
}

// work packs segments until there are none.
func (w *writer) work(ctx context.Context) error {
	enc, err := zstd.NewWriter(nil, encoderOptions...)
	if err != nil {
		return err
	}
	defer enc.Close()
	files := newWalker(w.root)
	defer files.close()
	raw := make([]byte, 0, segmentLength+tarEnd)
	for s := range w.segments {
		raw, err = w.read(files, s, raw[:0])
		if err != nil {
			return err
		}
		if s.slot == nil { // growing from nothing would leave as much garbage
			s.slot = make([]byte, 0, len(raw)/2)
		}
		data := enc.EncodeAll(raw, s.slot[:0])
		f := frame{size: len(data), length: len(raw), digest: sha256.Sum256(data)}
		if err := send(ctx, w.packed, packedSegment{number: s.number, frame: f, data: data}); err != nil {
			return err
		}
	}
	return nil
}

// encoderOptions are for frames. Level 1: a profile of a save of node_modules
// spends more than half of its time in the encoder as it is. A digest stands for
// each frame, so zstd's own checksum is left out.
var encoderOptions = []zstd.EOption{
	zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
	zstd.WithEncoderCRC(false), zstd.WithWindowSize(segmentLength),
}

// read fills a buffer with a segment.
func (w *writer) read(files *walker, s *segment, raw []byte) ([]byte, error) {
	for i := range s.items {
		it := &s.items[i]
		if it.header.kind != 0 {
			raw = it.header.append(raw)
			if it.header.kind == '0' {
				w.options.Progress.Files.Add(1)
			}
		}
		if it.n > 0 {
			begin := len(raw)
			raw = raw[:begin+int(it.n)]
			if err := readFile(files, it, raw[begin:]); err != nil {
				return raw, err
			}
			w.options.Progress.Bytes.Add(it.n)
		}
		raw = append(raw, zeros[:it.pad]...)
	}
	return raw, nil
}

// readFile reads the piece of a file that an item is.
func readFile(files *walker, it *item, b []byte) error {
	dir, name := splitPath(it.path)
	at, err := files.enter(dir)
	if err != nil {
		return err
	}
	// Without O_NONBLOCK a pipe that has taken the file's place would be waited for.
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return fmt.Errorf("open %s: %w", quote(it.path), err)
	}
	defer unix.Close(fd)
	for done := 0; done < len(b); {
		n, err := ignoringEINTR(func() (int, error) { return unix.Pread(fd, b[done:], it.offset+int64(done)) })
		if err != nil {
			return fmt.Errorf("read %s: %w", quote(it.path), err)
		}
		if n == 0 {
			return fmt.Errorf("read %s: it became shorter while the cache was saved", quote(it.path))
		}
		done += n
	}
	return nil
}

// order brings packed segments into order and hands them to the parts.
func (w *writer) order(ctx context.Context, parts *parts) error {
	waiting := map[int]packedSegment{}
	offset, raw := int64(0), int64(0)
	for next := 0; ; {
		s, ok := waiting[next]
		if !ok {
			select {
			case s, ok = <-w.packed:
			case <-ctx.Done():
				ok = false
			}
			if !ok {
				return ctx.Err()
			}
			if s.number != next {
				waiting[s.number] = s
				continue
			}
		}
		delete(waiting, next)
		next++
		s.frame.offset, s.frame.raw = offset, raw
		offset, raw = offset+int64(s.frame.size), raw+int64(s.frame.length)
		w.frames = append(w.frames, s.frame)
		if err := parts.write(ctx, s.data); err != nil {
			return err
		}
		w.slots <- s.data
	}
}

// finish writes the index.
func (w *writer) finish(ctx context.Context, p *planner, parts *parts) error {
	last := w.frames[len(w.frames)-1]
	size := last.offset + int64(last.size)
	if err := w.options.Limits.checkBytes(last.end(), size); err != nil {
		return err
	}
	index := p.index.finish(w.frames)
	if int64(len(index)) > w.options.Limits.Index || len(w.frames) > maxFrames {
		return fmt.Errorf("%w: its index has %d bytes, at most %d are taken", ErrLimit, len(index), w.options.Limits.Index)
	}
	sealed, digest, err := sealIndex(index)
	if err != nil {
		return err
	}
	p.summary.Size = size + int64(len(sealed))
	p.summary.Digest = hex.EncodeToString(digest[:])
	p.summary.Fingerprint = p.print.sum()
	if err := parts.write(ctx, sealed); err != nil {
		return err
	}
	parts.finish(ctx)
	return nil
}

// send and receive give up with the context.
func send[T any](ctx context.Context, c chan<- T, v T) error {
	select {
	case c <- v:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func receive[T any](ctx context.Context, c <-chan T) (T, error) {
	select {
	case v, ok := <-c:
		if !ok {
			return v, errors.New("closed")
		}
		return v, nil
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}
