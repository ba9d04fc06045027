package transfer

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"podlane/cacheclient/archive"
)

// answersEarly refuses before it has read the part, and hangs up.
func answersEarly(status int, code string) fault {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Connection", "close")
		s3Error(w, status, code)
		return true
	}
}

func TestUpload(t *testing.T) {
	hangsMidway := func(_ http.ResponseWriter, r *http.Request) bool {
		_, _ = io.CopyN(io.Discard, r.Body, 1000)
		panic(http.ErrAbortHandler)
	}
	stalls := func(_ http.ResponseWriter, r *http.Request) bool {
		// Whether the sender has gone is noticed only behind the body.
		_, _ = io.Copy(io.Discard, r.Body)
		untilGone(r)
		return true
	}
	for name, tc := range map[string]struct {
		faults []fault
		signer *signer
		renew  int
	}{
		"undisturbed":   {},
		"throttled":     {faults: []fault{answers(503, "SlowDown"), answersEarly(503, "SlowDown")}},
		"reset":         {faults: []fault{hangUp, hangsMidway}},
		"stalled":       {faults: []fault{stalls}},
		"expired":       {signer: &signer{signatures: []string{"expired", "good"}}, renew: 1},
		"expired early": {faults: []fault{answersEarly(403, "ExpiredToken")}, renew: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, 0, tc.faults...)
			signer := tc.signer.of(s)
			uploader := newClient(t, Config{Stall: time.Second, Attempts: 50}).Uploader(signer)
			data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			sent := slices.Clone(data)
			if err := uploader.Part(t.Context(), archive.Part{Number: 7, Data: sent}); err != nil {
				t.Fatal(err)
			}
			// The data is the caller's again: the race detector sees who reads on.
			clear(sent)
			if !bytes.Equal(s.parts["7"], data) {
				t.Errorf("the server has %d bytes that differ", len(s.parts["7"]))
			}
			done := uploader.Done()
			if len(done) != 1 || done[0].Number != 7 || done[0].Size != int64(len(data)) || len(done[0].ETag) != 34 {
				t.Errorf("done: %+v", done)
			}
			if signer.renew < tc.renew {
				t.Errorf("signed anew %d times, want %d", signer.renew, tc.renew)
			}
		})
	}
}

func TestUploadFails(t *testing.T) {
	noETag := func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusOK)
		return true
	}
	for name, tc := range map[string]struct {
		faults []fault
		signer *signer
		want   error
		text   string
	}{
		"down":     {faults: slices.Repeat([]fault{answers(500, "InternalError")}, 20), text: "upload part 1: given up after 3 attempts: "},
		"ended":    {faults: []fault{answers(404, "NoSuchUpload")}, want: ErrGone, text: "404 NoSuchUpload"},
		"refused":  {faults: slices.Repeat([]fault{answers(403, "AccessDenied")}, 2), want: ErrRefused},
		"no etag":  {faults: []fault{noETag}, text: "no ETag"},
		"unsigned": {signer: &signer{signatures: []string{"expired"}, err: errors.New("credentials ended")}, text: "presign: credentials ended"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, 0, tc.faults...)
			signer := tc.signer.of(s)
			uploader := newClient(t, Config{Attempts: 3}).Uploader(signer)
			err := uploader.Part(t.Context(), archive.Part{Number: 1, Data: []byte("x")})
			if err == nil {
				t.Fatal("no error")
			}
			noSecret(t, err)
			if (tc.want != nil && !errors.Is(err, tc.want)) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %q, want %v with %q", err, tc.want, tc.text)
			}
			if len(uploader.Done()) != 0 {
				t.Error("a part that failed is done")
			}
		})
	}
}

// A refusal must be heard even if it comes while a large part is being sent.
func TestUploadHearsRefusal(t *testing.T) {
	s := newServer(t, 0, slices.Repeat([]fault{answersEarly(403, "AccessDenied")}, 50)...)
	uploader := newClient(t, Config{Attempts: 20}).Uploader(&signer{server: s})
	err := uploader.Part(t.Context(), archive.Part{Number: 1, Data: make([]byte, 32<<20)})
	if !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want %v", err, ErrRefused)
	}
}

func TestUploadInParallel(t *testing.T) {
	s := newServer(t, 0)
	uploader := newClient(t, Config{}).Uploader(&signer{server: s})
	const parts = 20
	var wg sync.WaitGroup
	for i := parts; i > 0; i-- {
		wg.Go(func() {
			if err := uploader.Part(t.Context(), archive.Part{Number: i, Data: []byte(strconv.Itoa(i))}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, part := range uploader.Done() {
		if part.Number != i+1 {
			t.Errorf("part %d is at place %d", part.Number, i+1)
		}
	}
	for i := 1; i <= parts; i++ {
		if got := string(s.parts[strconv.Itoa(i)]); got != strconv.Itoa(i) {
			t.Errorf("part %d is %q", i, got)
		}
	}
}
