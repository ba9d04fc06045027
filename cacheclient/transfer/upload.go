package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"

	"podlane/cacheclient/archive"
)

// Uploader sends the parts of one upload. It is an [archive.Sink].
type Uploader struct {
	client *Client
	signer Signer

	mu   sync.Mutex
	done []Done
}

var _ archive.Sink = (*Uploader)(nil)

// Done is a part that the server has.
type Done struct {
	Number int    `json:"number"`
	ETag   string `json:"etag"`
	Size   int64  `json:"size"`
}

// Uploader returns an uploader for the upload that the signer's Part requests
// name.
func (c *Client) Uploader(s Signer) *Uploader { return &Uploader{client: c, signer: s} }

// Part sends a part, again if need be, and returns when the server has it.
// Several goroutines may do so at once. Its time is bounded by ctx alone.
func (u *Uploader) Part(ctx context.Context, part archive.Part) error {
	etag, err := u.send(ctx, part)
	if err != nil {
		return fmt.Errorf("upload part %d: %w", part.Number, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.done = append(u.done, Done{Number: part.Number, ETag: etag, Size: int64(len(part.Data))})
	return nil
}

// Done returns the parts sent so far, sorted: what completing the upload needs.
func (u *Uploader) Done() []Done {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.SortedFunc(slices.Values(u.done), func(a, b Done) int { return cmp.Compare(a.Number, b.Number) })
}

func (u *Uploader) send(ctx context.Context, part archive.Part) (etag string, err error) {
	attempts := u.client.attempts(fmt.Sprintf("part %d", part.Number))
	renew, repeated := false, false
	for {
		// Each part is signed for itself, and again for each attempt after a
		// renewal only: the signer costs a round trip.
		signed, err := u.signer.Part(ctx, part.Number, int64(len(part.Data)), renew)
		if err != nil {
			return "", fmt.Errorf("presign: %w", err)
		}
		for renew = false; !renew; {
			etag, f := u.attempt(ctx, signed, part.Data, repeated)
			if f == nil {
				return etag, nil
			}
			repeated = true
			if renew, err = attempts.next(ctx, f); err != nil {
				return "", err
			}
		}
	}
}

func (u *Uploader) attempt(outer context.Context, signed Request, data []byte, repeated bool) (etag string, f *failure) {
	ctx, watch := u.client.watched(outer)
	defer watch.end()
	req, err := u.client.newRequest(ctx, http.MethodPut, signed)
	if err != nil {
		return "", permanent(err)
	}
	lent := &loan{data: data, watch: watch, counts: &u.client.counts}
	defer lent.end()
	req.Body, req.ContentLength = lent.body(), int64(len(data))
	// Lets the transport itself send again on a connection that the server
	// had closed before it saw the request.
	req.GetBody = func() (io.ReadCloser, error) { return lent.body(), nil }
	if repeated {
		// A server that refuses may hang up before it was sent everything, and
		// the reason is lost; this time it is asked first.
		req.Header.Set("Expect", "100-continue")
	}
	resp, err := u.client.do(req)
	if err != nil {
		return "", attemptFailure(outer, ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", statusFailure(resp)
	}
	if etag = resp.Header.Get("ETag"); etag == "" {
		return "", permanent(errors.New("the S3 server's answer has no ETag"))
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10)) // for the connection's sake
	return etag, nil
}

// A loan is a part's data while an attempt sends it. net/http may go on reading
// a body after it has returned an answer, but the data is ours only until then.
type loan struct {
	watch  *watch
	counts *Counts

	mu   sync.Mutex
	data []byte
	over bool
}

func (l *loan) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over, l.data = true, nil
}

func (l *loan) body() io.ReadCloser { return &lentBody{loan: l} }

var errOver = errors.New("attempt is over")

type lentBody struct {
	loan *loan
	at   int
}

func (b *lentBody) Read(p []byte) (int, error) {
	b.loan.mu.Lock()
	defer b.loan.mu.Unlock()
	switch {
	case b.loan.over:
		return 0, errOver
	case b.at == len(b.loan.data):
		return 0, io.EOF
	}
	n := copy(p, b.loan.data[b.at:])
	b.at += n
	b.loan.watch.moved()
	b.loan.counts.Written.Add(int64(n))
	return n, nil
}

func (b *lentBody) Close() error { return nil }
