package archive

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Ranges are between these lengths: each costs a round trip, which the transfer
// of 8 MiB outweighs (80 ms at 100 MB/s), but all connections should have work.
const (
	shortestRange = 1 << 20
	longestRange  = 8 << 20
)

// fetchedFrame is a frame as it came, unchecked.
type fetchedFrame struct {
	number int
	data   []byte
}

// fetched is the stream of frames from connections to workers.
type fetched struct {
	ready chan fetchedFrame
	slots chan []byte
}

// release gives a frame's buffer back.
func (f *fetched) release(frame fetchedFrame) { f.slots <- frame.data }

// drain takes what is still to come, until the fetchers have ended.
func (f *fetched) drain() {
	for frame := range f.ready {
		f.release(frame)
	}
}

// span is frames that are fetched as one range.
type span struct{ first, end int }

// spans cuts what is needed of the archive into ranges.
func (x *Index) spans(connections int) []span {
	length := min(max(x.wanted()/int64(2*connections), shortestRange), longestRange)
	var all []span
	for i := 0; i < len(x.frames); {
		first, begin := i, x.frames[i].offset
		for i < len(x.frames) && x.needed.has(i) && (i == first || x.frames[i].offset+int64(x.frames[i].size)-begin <= length) {
			i++
		}
		if i == first {
			i++
			continue
		}
		all = append(all, span{first, i})
	}
	return all
}

// wanted is how many bytes of the archive there are to fetch.
func (x *Index) wanted() int64 {
	n := int64(0)
	for i := range x.frames {
		if x.needed.has(i) {
			n += int64(x.frames[i].size)
		}
	}
	return n
}

// fetchAll fetches all frames that are needed, by several connections at once and in about
// their order. The channel is closed when all are there or ctx has ended.
func (r *restorer) fetchAll(ctx context.Context, cancel context.CancelCauseFunc) *fetched {
	spans := r.tree.index.spans(r.options.Connections)
	connections := min(r.options.Connections, len(spans))
	// One buffer for each that fills one and for each that empties one.
	slots := connections + r.options.Workers
	f := &fetched{ready: make(chan fetchedFrame, slots), slots: make(chan []byte, slots)}
	for range slots {
		f.slots <- nil
	}
	queue := make(chan span, len(spans))
	for _, s := range spans {
		queue <- s
	}
	close(queue)
	var fetchers sync.WaitGroup
	for range connections {
		fetchers.Go(func() {
			for s := range queue {
				if err := r.fetchSpan(ctx, s, f); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	go func() { // ends with the fetchers, which run waits for by the channel
		fetchers.Wait()
		close(f.ready)
	}()
	return f
}

// fetchSpan fetches one range and hands its frames on as they come.
func (r *restorer) fetchSpan(ctx context.Context, s span, f *fetched) error {
	frames := r.tree.index.frames[s.first:s.end]
	begin, last := frames[0].offset, &frames[len(frames)-1]
	n := last.offset + int64(last.size) - begin
	body, err := r.fetch(ctx, begin, n)
	if err != nil {
		return fmt.Errorf("fetch bytes %d to %d: %w", begin, begin+n-1, err)
	}
	defer body.Close()
	for i := range frames {
		slot, err := receive(ctx, f.slots)
		if err != nil {
			return err
		}
		if cap(slot) < frames[i].size {
			slot = make([]byte, frames[i].size)
		}
		slot = slot[:frames[i].size]
		if _, err := io.ReadFull(body, slot); err != nil {
			return fmt.Errorf("fetch bytes %d to %d: %w", begin, begin+n-1, err)
		}
		r.options.Progress.Wire.Add(int64(len(slot)))
		f.ready <- fetchedFrame{number: s.first + i, data: slot} // has room for all slots
	}
	return nil
}

// newDecoder makes a decoder of frames for one worker.
func newDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxFrameLength), zstd.WithDecodeAllCapLimit(true))
}

// decode checks a frame's digest, then decodes it into a buffer that is large
// enough for any frame of the archive. It cannot grow: what a frame claims to be
// is all it may become.
func (r *restorer) decode(dec *zstd.Decoder, f fetchedFrame, raw []byte) ([]byte, error) {
	want := &r.tree.index.frames[f.number]
	if digest := sha256.Sum256(f.data); digest != want.digest {
		return raw, fmt.Errorf("%w: frame %d has the digest %x, its index says %x: the object is damaged", ErrFormat, f.number, digest[:8], want.digest[:8])
	}
	b, err := dec.DecodeAll(f.data, raw[:0:want.length])
	if err != nil {
		return raw, fmt.Errorf("%w: frame %d cannot be decoded: %w", ErrFormat, f.number, err)
	}
	if len(b) != want.length {
		return raw, fmt.Errorf("%w: frame %d unpacks to %d bytes, its index says %d", ErrFormat, f.number, len(b), want.length)
	}
	return raw[:len(b)], nil
}
