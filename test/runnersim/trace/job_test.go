package trace_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"podlane/test/runnersim/trace"
)

// server keeps a log as GitLab does; answers queued in replies come first.
type server struct {
	mu      sync.Mutex
	log     []byte
	size    int64 // also where the log itself isn't kept
	discard bool
	states  []trace.State
	replies []answer
	status  string
	patched chan struct{}
}

// answer replaces one answer to a patch.
type answer struct {
	reply trace.Reply
	err   error
}

func newServer() *server { return &server{patched: make(chan struct{}, 1)} }

func (s *server) Patch(_ context.Context, content []byte, offset int64) (trace.Reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.replies) > 0 {
		a := s.replies[0]
		s.replies = s.replies[1:]
		return a.reply, a.err
	}
	if offset != s.size {
		return trace.Reply{Code: http.StatusRequestedRangeNotSatisfiable, Offset: s.size}, nil
	}
	s.size += int64(len(content))
	if !s.discard {
		s.log = append(s.log, content...)
	}
	select {
	case s.patched <- struct{}{}:
	default:
	}
	return trace.Reply{Code: http.StatusAccepted, JobStatus: s.status}, nil
}

func (s *server) Update(_ context.Context, state trace.State) (trace.Reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states = append(s.states, state)
	reply := trace.Reply{Code: http.StatusOK, JobStatus: s.status}
	if state.State == "running" || s.discard {
		return reply, nil
	}
	if state.Checksum != fmt.Sprintf("crc32:%08x", crc32.ChecksumIEEE(s.log)) {
		s.log, s.size = nil, 0
		reply.Code = http.StatusPreconditionFailed
	}
	return reply, nil
}

func startJob(t *testing.T, s *server, opts trace.Options) *trace.Job {
	t.Helper()
	opts.Dir = t.TempDir()
	if opts.Interval == 0 {
		opts.Interval = time.Millisecond
	}
	j, err := trace.Start(t.Context(), s, opts)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestJobArrivesWhole(t *testing.T) {
	cases := map[string][]answer{
		"no faults":      nil,
		"range mismatch": {{reply: trace.Reply{Code: 416, Offset: 0}}, {reply: trace.Reply{Code: 416, Offset: 0}}},
		"500":            {{reply: trace.Reply{Code: 500}}},
		"no connection":  {{err: errors.New("connection refused")}},
		// GitLab has forgotten what it accepted: the checksum tells.
		"lost patch": {{reply: trace.Reply{Code: 202}}},
	}
	for name, replies := range cases {
		t.Run(name, func(t *testing.T) {
			s := newServer()
			s.replies = replies
			j := startJob(t, s, trace.Options{})
			want := strings.Repeat("line\n\x00\xff", 300_000)
			fmt.Fprint(j, want)
			if err := j.Finish(t.Context(), trace.State{State: "failed", FailureReason: "script_failure", ExitCode: 3}); err != nil {
				t.Fatal(err)
			}
			if got := string(s.log); got != want {
				t.Errorf("log has %d bytes, want %d the same", len(got), len(want))
			}
			last := s.states[len(s.states)-1]
			if last.State != "failed" || last.ExitCode != 3 || last.Size != int64(len(want)) {
				t.Errorf("last update = %+v", last)
			}
		})
	}
}

func TestJobCancel(t *testing.T) {
	cases := map[string]struct {
		status, reported string
		wants            string
	}{
		"graceful": {status: "canceling", wants: "cancel"},
		"forced":   {status: "canceled", wants: "abort"},
		"failed":   {status: "failed", wants: "abort"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := newServer()
			s.status = c.status
			j := startJob(t, s, trace.Options{Touch: time.Millisecond})
			called := make(chan string, 10)
			j.OnCancel(func() { called <- "cancel" })
			j.OnAbort(func() { called <- "abort" })
			if got := <-called; got != c.wants {
				t.Errorf("%s called, want %s", got, c.wants)
			}
			if err := j.Finish(t.Context(), trace.State{State: "failed"}); err != nil {
				t.Fatal(err)
			}
			if len(called) > 0 {
				t.Errorf("%s called as well", <-called)
			}
		})
	}
}

func TestFlushAtOnce(t *testing.T) {
	s := newServer()
	j := startJob(t, s, trace.Options{Interval: time.Hour, FlushAtOnce: true})
	fmt.Fprintln(j, "first")
	select {
	case <-s.patched:
	case <-time.After(10 * time.Second):
		t.Error("output was not sent at once")
	}
	if err := j.Finish(t.Context(), trace.State{State: "success"}); err != nil {
		t.Fatal(err)
	}
}

func TestFinishEndsWithItsContext(t *testing.T) {
	s := newServer()
	for range 100 {
		s.replies = append(s.replies, answer{err: errors.New("connection refused")})
	}
	j := startJob(t, s, trace.Options{Interval: time.Hour})
	fmt.Fprintln(j, "text")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := j.Finish(ctx, trace.State{State: "success"}); err == nil {
		t.Error("Finish succeeded, want an error")
	}
}

// TestMemory sends 64 MiB and looks at the heap under way: 4 MiB were measured,
// also for 200 MiB.
func TestMemory(t *testing.T) {
	s := newServer()
	s.discard = true
	j := startJob(t, s, trace.Options{FlushAtOnce: true})
	w := trace.Mask(j, []string{"a masked value"}, nil)
	chunk := bytes.Repeat([]byte("some output of a build\n"), 32<<10/23)
	var total int64
	var peak uint64
	for total < 64<<20 {
		n, err := w.Write(chunk)
		if err != nil {
			t.Fatal(err)
		}
		total += int64(n)
		if total%(64*int64(len(chunk))) == 0 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Finish(t.Context(), trace.State{State: "success"}); err != nil {
		t.Fatal(err)
	}
	if s.size != total {
		t.Errorf("%d bytes arrived, want %d", s.size, total)
	}
	t.Logf("peak of the heap: %d MiB", peak>>20)
	if peak > 32<<20 {
		t.Errorf("the heap grew to %d MiB for %d MiB of output", peak>>20, total>>20)
	}
}
