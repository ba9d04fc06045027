package archive

import (
	"context"
	"fmt"
	"sync"
)

// parts cuts a stream into parts and gives them to the sink, several at once.
type parts struct {
	sink    Sink
	size    int
	fail    func(error)
	wire    func(int)
	number  int
	buffer  []byte
	free    chan []byte
	uploads sync.WaitGroup
}

func newParts(o WriteOptions, sink Sink, fail func(error)) *parts {
	p := &parts{
		sink: sink, size: o.PartSize, fail: fail, free: make(chan []byte, o.Uploads),
		wire: func(n int) { o.Progress.Wire.Add(int64(n)) },
	}
	for range o.Uploads {
		p.free <- nil // made when needed: small archives need one
	}
	return p
}

// write takes a copy of b.
func (p *parts) write(ctx context.Context, b []byte) error {
	for len(b) > 0 {
		// A full part goes out only when more follows: the last one must say so.
		if p.buffer != nil && len(p.buffer) == p.size {
			p.upload(ctx, false)
		}
		if p.buffer == nil {
			buffer, err := receive(ctx, p.free)
			if err != nil {
				return err
			}
			if buffer == nil {
				buffer = make([]byte, 0, p.size)
			}
			p.buffer = buffer[:0]
		}
		n := min(p.size-len(p.buffer), len(b))
		p.buffer, b = append(p.buffer, b[:n]...), b[n:]
	}
	return nil
}

// upload sends the buffer off without waiting for it.
func (p *parts) upload(ctx context.Context, last bool) {
	p.number++
	part := Part{Number: p.number, Last: last, Data: p.buffer}
	p.buffer = nil
	p.uploads.Go(func() {
		if err := p.sink.Part(ctx, part); err != nil {
			p.fail(fmt.Errorf("part %d: %w", part.Number, err))
			return
		}
		p.wire(len(part.Data))
		p.free <- part.Data
	})
}

// finish sends what is left.
func (p *parts) finish(ctx context.Context) { p.upload(ctx, true) }

func (p *parts) wait() { p.uploads.Wait() }
