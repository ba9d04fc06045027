package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const objectSize = 1 << 20

// read fetches one range as a whole.
func read(ctx context.Context, r *Reader, offset, n int64) ([]byte, error) {
	body, err := r.Fetch(ctx, offset, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func TestFetch(t *testing.T) {
	for name, tc := range map[string]struct {
		faults func(s *server) []fault
		signer *signer
		// ranges are the requests, if they are always the same.
		ranges []string
		renew  int
	}{
		"undisturbed": {ranges: []string{"bytes=100-524387"}},
		"throttled": {faults: func(*server) []fault {
			return []fault{answers(503, "SlowDown"), answers(500, "InternalError"), answers(429, "")}
		}},
		"reset before the answer": {faults: func(*server) []fault { return []fault{ok, hangUp} }},
		"broken midway": {
			faults: func(s *server) []fault { return []fault{s.breaksAfter(1000, now), s.breaksAfter(200_000, now)} },
			ranges: []string{"bytes=100-524387", "bytes=1100-524387", "bytes=201100-524387"},
		},
		"stalled midway": {
			faults: func(s *server) []fault { return []fault{s.breaksAfter(1000, untilGone)} },
		},
		"stalled before the answer": {
			faults: func(*server) []fault {
				return []fault{func(_ http.ResponseWriter, r *http.Request) bool { untilGone(r); return true }}
			},
		},
		"many breaks with progress": {
			faults: func(s *server) []fault { return slices.Repeat([]fault{s.breaksAfter(worthwhile, now)}, 7) },
		},
		"expired": {signer: &signer{signatures: []string{"expired", "good"}}, renew: 1},
		"refreshed by somebody": {
			faults: func(*server) []fault { return []fault{answers(412, "PreconditionFailed")} },
			renew:  1,
		},
		"expired token on AWS": {
			faults: func(*server) []fault { return []fault{answers(400, "ExpiredToken")} },
			renew:  1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, objectSize)
			if tc.faults != nil {
				s.faults = tc.faults(s)
			}
			signer := tc.signer.of(s)
			// An attempt that is slow because the machine is counts as stalled,
			// too: there are enough of them.
			client := newClient(t, Config{Stall: time.Second, Attempts: 50})
			got, err := read(t.Context(), client.Reader(signer, objectSize), 100, objectSize/2)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, s.object[100:100+objectSize/2]) {
				t.Error("got other bytes")
			}
			if tc.ranges != nil && client.Counts().Retries.Load() == int64(len(tc.ranges)-1) {
				if diff := cmp.Diff(tc.ranges, s.requests()); diff != "" {
					t.Error(diff)
				}
			}
			if signer.renew != tc.renew {
				t.Errorf("signed anew %d times, want %d", signer.renew, tc.renew)
			}
		})
	}
}

func TestFetchFails(t *testing.T) {
	for name, tc := range map[string]struct {
		faults []fault
		signer *signer
		size   int64 // that the caller believes in
		want   error
		text   string
	}{
		"down":               {faults: slices.Repeat([]fault{answers(503, "SlowDown")}, 20), text: "given up after 3 attempts: "},
		"resets":             {faults: slices.Repeat([]fault{hangUp}, 20), text: "given up after 3 attempts: "},
		"gone":               {faults: []fault{answers(404, "NoSuchKey")}, want: ErrGone, text: "404 NoSuchKey"},
		"refused":            {faults: []fault{answers(403, "AccessDenied"), answers(403, "AccessDenied")}, want: ErrRefused, text: "403 AccessDenied"},
		"expired for good":   {signer: &signer{signatures: []string{"expired"}}, want: ErrRefused},
		"no new signature":   {signer: &signer{signatures: []string{"expired"}, err: errors.New("credentials ended")}, text: "presign: credentials ended"},
		"replaced":           {faults: []fault{answers(412, "PreconditionFailed"), answers(412, "PreconditionFailed")}, want: ErrChanged},
		"truncated":          {size: objectSize + 1, want: ErrChanged, text: "it has 1048576 bytes, expected 1048577"},
		"truncated below us": {faults: []fault{answers(416, "InvalidRange")}, want: ErrChanged},
		"not implemented":    {faults: []fault{answers(501, "NotImplemented")}, text: "501 NotImplemented"},
		"moved":              {faults: []fault{answers(301, "PermanentRedirect")}, text: "301 PermanentRedirect"},
		"strange code":       {faults: []fault{answers(400, "\x1b[31mred")}, text: "400"},
		"no ranges":          {faults: []fault{func(w http.ResponseWriter, _ *http.Request) bool { _, _ = w.Write([]byte("all")); return true }}, text: "does not know ranges"},
		"wrong range": {faults: []fault{func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Range", "bytes 0-9/1048576")
			w.WriteHeader(http.StatusPartialContent)
			return true
		}}, text: `Content-Range "bytes 0-9/1048576"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, objectSize, tc.faults...)
			signer := tc.signer.of(s)
			size := tc.size
			if size == 0 {
				size = objectSize
			}
			got, err := read(t.Context(), newClient(t, Config{Attempts: 3}).Reader(signer, size), 10, objectSize/2)
			if err == nil {
				t.Fatalf("got %d bytes, want an error", len(got))
			}
			noSecret(t, err)
			if (tc.want != nil && !errors.Is(err, tc.want)) || !strings.Contains(err.Error(), tc.text) || strings.ContainsRune(err.Error(), '\x1b') {
				t.Errorf("got %q, want %v with %q", err, tc.want, tc.text)
			}
		})
	}
}

func TestFetchOutside(t *testing.T) {
	reader := New(Config{}).Reader(&signer{}, 100)
	for _, r := range [][2]int64{{-1, 1}, {0, 101}, {100, 1}, {1, 1<<63 - 1}, {0, -1}} {
		if _, err := reader.Fetch(t.Context(), r[0], r[1]); err == nil {
			t.Errorf("%d bytes at %d: no error", r[1], r[0])
		}
	}
	if got, err := read(t.Context(), reader, 100, 0); err != nil || len(got) != 0 {
		t.Errorf("nothing at the end: %d bytes, %v", len(got), err)
	}
}

// Many ranges at once find that the signature has run out; one new one is enough.
func TestFetchInParallel(t *testing.T) {
	s := newServer(t, objectSize)
	signer := &signer{server: s, signatures: []string{"expired", "good"}}
	client := newClient(t, Config{Connections: 8})
	reader := client.Reader(signer, objectSize)
	const ranges = 32
	got := make([]byte, objectSize)
	var wg sync.WaitGroup
	for i := range ranges {
		wg.Go(func() {
			const n = objectSize / ranges
			b, err := read(t.Context(), reader, int64(i*n), n)
			if err != nil {
				t.Error(err)
			}
			copy(got[i*n:], b)
		})
	}
	wg.Wait()
	if !bytes.Equal(got, s.object) {
		t.Error("got other bytes")
	}
	if signer.calls != 2 || signer.renew != 1 {
		t.Errorf("signed %d times, %d of them anew; want 2 and 1", signer.calls, signer.renew)
	}
	if n := client.Counts().Read.Load(); n != objectSize {
		t.Errorf("counted %d bytes, want %d", n, objectSize)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	s := newServer(t, objectSize)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("the job was cancelled")
	s.faults = []fault{s.breaksAfter(10, func(r *http.Request) {
		cancel(stop)
		untilGone(r)
	})}
	client := newClient(t, Config{})
	if _, err := read(ctx, client.Reader(&signer{server: s}, objectSize), 0, 100); !errors.Is(err, stop) {
		t.Errorf("got %v, want %v", err, stop)
	}
	if n := client.Counts().Retries.Load(); n != 0 {
		t.Errorf("tried again %d times after the end", n)
	}
}

func TestContentRange(t *testing.T) {
	for in, want := range map[string][3]int64{
		"bytes 5-9/20": {5, 20, 1}, "bytes 0-0/*": {0, -1, 1}, "": {}, "bytes": {}, "bytes x-9/20": {}, "bytes 5-9/x": {5, 0, 0}, "items 5-9/20": {},
	} {
		start, total, ok := contentRange(in)
		if ok != (want[2] == 1) || (ok && (start != want[0] || total != want[1])) {
			t.Errorf("%q: %d of %d, %v", in, start, total, ok)
		}
	}
}
