package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"podlane/podagent"
)

// asHelper makes of the test program a helper that says in the end how much
// memory it has had.
const asHelper = "PODLANE_TEST_AS_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(asHelper) == "" { //nolint:forbidigo // the test program's own
		os.Exit(m.Run())
	}
	code := run(os.Args, os.Environ(), os.Stdin, os.Stdout, os.Stderr) //nolint:forbidigo // the test program's own
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Fprintln(os.Stderr, strings.TrimSpace(strings.SplitN(peak, "kB", 2)[0]))
	os.Exit(code)
}

// mostMemory is what a pod's memory limit has to leave for a cache.
const mostMemory = 128 << 20

// The buffers of a save and a restore are bounded, so a tree that fills all of
// them shows what a tree of any size needs. Nothing here depends on time.
func TestCacheMemory(t *testing.T) {
	project, restored := t.TempDir(), t.TempDir()
	noise := rand.NewChaCha8([32]byte{})
	data := make([]byte, 8<<20) // does not compress: buffers of compressed data are as full as can be
	_, _ = noise.Read(data)
	for i := range 7 {
		_, _ = noise.Read(data[:32])
		write(t, filepath.Join(project, "tree", fmt.Sprintf("large%d", i)), data)
	}
	for i := range 2000 {
		write(t, filepath.Join(project, "tree", strconv.Itoa(i/100), fmt.Sprintf("small%d", i)), data[i:i+i%1000])
	}
	bucket := &parts{dir: t.TempDir()}
	server := httptest.NewServer(bucket)
	defer server.Close()

	var saved *podagent.SaveResult
	used := session(t, project, func(s *podagent.CacheSession) error {
		done, err := s.Do(t.Context(), podagent.CacheOrder{Save: &podagent.SaveOrder{Paths: []string{"tree"}}}, func(_ context.Context, ask podagent.CacheAsk) podagent.CacheAnswer {
			return podagent.CacheAnswer{URL: fmt.Sprintf("%s/%d", server.URL, ask.Part.Number)}
		}, nil)
		saved = done.Save
		return err
	})
	if used > mostMemory {
		t.Errorf("a save took %d MiB of memory, at most %d are meant to be", used>>20, mostMemory>>20)
	}
	bucket.join(t, len(saved.Parts))
	used = session(t, restored, func(s *podagent.CacheSession) error {
		done, err := s.Do(t.Context(), podagent.CacheOrder{Restore: &podagent.RestoreOrder{Size: saved.Size, Digest: saved.Digest, Paths: []string{"tree"}}},
			func(context.Context, podagent.CacheAsk) podagent.CacheAnswer {
				return podagent.CacheAnswer{URL: server.URL + "/all"}
			}, nil)
		if err == nil && done.Restore.Files != 2007 {
			err = fmt.Errorf("%d files were restored", done.Restore.Files)
		}
		return err
	})
	if used > mostMemory {
		t.Errorf("a restore took %d MiB of memory, at most %d are meant to be", used>>20, mostMemory>>20)
	}
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, data, 0o644)); err != nil {
		t.Fatal(err)
	}
}

// session runs a helper on two processors and returns the most memory it had.
func session(t *testing.T, project string, do func(*podagent.CacheSession) error) int64 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "cache")
	cmd.Env = append(os.Environ(), asHelper+"=1", "GOMAXPROCS=2", "GOGC=100", "GOMEMLIMIT=", "PODLANE_HELPER_ROOT="+t.TempDir()) //nolint:forbidigo // the test program's own
	var said strings.Builder
	connect := func(_ context.Context, stdin io.Reader, stdout, _ io.Writer) error {
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(in, stdin)
			in.Close()
		}()
		cmd.Stdout, cmd.Stderr = stdout, &said
		return cmd.Run()
	}
	s, err := podagent.OpenCache(t.Context(), connect, podagent.CacheHeader{Project: project})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(s), s.Close()); err != nil {
		t.Fatal(err)
	}
	kib, err := strconv.ParseInt(strings.TrimSpace(said.String()), 10, 64)
	if err != nil {
		t.Fatalf("the helper said %q, expected its memory: %v", said.String(), err)
	}
	t.Logf("%d MiB", kib>>10)
	return kib << 10
}

// parts is an S3 server as far as presigned requests need one, with an object in
// files.
type parts struct {
	dir string
}

func (p *parts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := filepath.Join(p.dir, filepath.Base(r.URL.Path))
	if r.Method == http.MethodGet {
		http.ServeFile(w, r, name)
		return
	}
	file, err := os.Create(name)
	if err == nil {
		_, err = io.Copy(file, r.Body)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("ETag", "etag")
}

// join makes the object of its parts.
func (p *parts) join(t *testing.T, n int) {
	t.Helper()
	all, err := os.Create(filepath.Join(p.dir, "all"))
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	for i := range n {
		part, err := os.Open(filepath.Join(p.dir, strconv.Itoa(i+1)))
		if err == nil {
			_, err = io.Copy(all, part)
			err = errors.Join(err, part.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
