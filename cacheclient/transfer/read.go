package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Reader reads ranges of one object.
type Reader struct {
	client *Client
	size   int64
	signed shared
}

// Reader returns a reader for the object that the signer's Read requests name,
// of the given size.
func (c *Client) Reader(s Signer, size int64) *Reader {
	return &Reader{client: c, size: size, signed: shared{sign: s.Read}}
}

// Fetch opens n bytes from an offset on; several goroutines may do so at once.
// The result gives exactly n bytes or an error. It asks again by itself, from
// the byte at which an answer broke off; an error means that this didn't help.
// Its time is bounded by ctx alone.
func (r *Reader) Fetch(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
	if offset < 0 || n < 0 || offset > r.size-n {
		return nil, fmt.Errorf("%d bytes at %d of an object of %d bytes", n, offset, r.size)
	}
	body := &rangeBody{reader: r, ctx: ctx, offset: offset, left: n, attempts: r.client.attempts(fmt.Sprintf("bytes %d-%d", offset, offset+n-1))}
	if n == 0 {
		return body, nil
	}
	// The first answer is waited for here, so that a reader of many ranges
	// learns early what is wrong.
	if err := body.connect(); err != nil { //nolint:contextcheck // body has it
		return nil, err
	}
	return body, nil
}

// rangeBody is what is left to read of a range.
type rangeBody struct {
	reader     *Reader
	ctx        context.Context // io.Reader has none
	offset     int64
	left       int64
	attempts   *attempts
	generation int // of the signed request in use

	body  io.ReadCloser // nil between attempts
	watch *watch
	inner context.Context // of the attempt under way
	got   int64           // in this attempt
}

// worthwhile is how much an attempt has to bring to count as progress: a server
// that sends a few bytes and hangs up is no better than one that is down.
const worthwhile = 64 << 10

func (b *rangeBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if b.body == nil {
			if err := b.connect(); err != nil {
				return 0, err
			}
		}
		b.watch.moved()
		n, err := b.body.Read(p[:min(int64(len(p)), b.left)])
		b.watch.suspend()
		b.offset += int64(n)
		b.left -= int64(n)
		b.got += int64(n)
		b.reader.client.counts.Read.Add(int64(n))
		if b.got >= worthwhile {
			b.attempts.moved()
		}
		switch {
		case n > 0, b.left == 0:
			// An error comes again with the next read.
			return n, nil
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		}
		f := attemptFailure(b.ctx, b.inner, fmt.Errorf("connection broke with %d bytes to go: %w", b.left, err))
		b.drop()
		if err := b.again(f); err != nil {
			return 0, err
		}
	}
}

// connect makes attempts until one is answered with the bytes wanted.
func (b *rangeBody) connect() error {
	for {
		f := b.attempt()
		if f == nil {
			return nil
		}
		if err := b.again(f); err != nil {
			return err
		}
	}
}

func (b *rangeBody) again(f *failure) error {
	renew, err := b.attempts.next(b.ctx, f)
	if err != nil {
		return err
	}
	if !renew {
		b.generation-- // what was used is still good
	}
	return nil
}

func (b *rangeBody) attempt() *failure {
	signed, generation, err := b.reader.signed.get(b.ctx, b.generation)
	if err != nil {
		return permanent(err)
	}
	b.generation = generation
	ctx, watch := b.reader.client.watched(b.ctx)
	req, err := b.reader.client.newRequest(ctx, http.MethodGet, signed)
	if err != nil {
		watch.end()
		return permanent(err)
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", b.offset, b.offset+b.left-1))
	resp, err := b.reader.client.do(req)
	if err != nil {
		watch.end()
		return attemptFailure(b.ctx, ctx, err)
	}
	if f := b.check(resp); f != nil {
		resp.Body.Close()
		watch.end()
		return f
	}
	watch.suspend()
	b.body, b.watch, b.inner, b.got = resp.Body, watch, ctx, 0
	return nil
}

// check reports what is wrong with an answer.
func (b *rangeBody) check(resp *http.Response) *failure {
	switch resp.StatusCode {
	case http.StatusPartialContent:
		start, total, ok := contentRange(resp.Header.Get("Content-Range"))
		switch {
		case !ok || start != b.offset:
			return permanent(fmt.Errorf("%s answered with Content-Range %q, expected bytes from %d on", resp.Request.URL.Host, resp.Header.Get("Content-Range"), b.offset))
		case total >= 0 && total != b.reader.size:
			return permanent(fmt.Errorf("%w: it has %d bytes, expected %d", ErrChanged, total, b.reader.size))
		}
		return nil
	case http.StatusOK:
		if b.offset == 0 && b.left == b.reader.size && resp.ContentLength == b.reader.size {
			return nil
		}
		return permanent(fmt.Errorf("%s answered with all %d bytes, expected a range: it, or a proxy before it, does not know ranges", resp.Request.URL.Host, resp.ContentLength))
	default:
		return statusFailure(resp)
	}
}

// contentRange reads "bytes 0-99/1234"; total is -1 if the server doesn't say.
func contentRange(s string) (start, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, size, ok2 := strings.Cut(s, "/")
	first, _, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, false
	}
	start, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	if size == "*" {
		return start, -1, true
	}
	total, err = strconv.ParseInt(size, 10, 64)
	return start, total, err == nil
}

// drop ends the attempt under way.
func (b *rangeBody) drop() {
	if b.body != nil {
		// What was read to its end leaves the connection usable.
		b.body.Close()
		b.watch.end()
		b.body, b.watch = nil, nil
	}
}

// Close may come at any time, but not during a Read.
func (b *rangeBody) Close() error {
	b.drop()
	return nil
}
